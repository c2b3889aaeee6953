/** Runs the servers described by its one argument (JSON, see servers/specification.ts); prints `ready` when all are up. */
import { serveDns } from './servers/dns.js';
import { serveHttp } from './servers/http.js';
import type { PeerSpecification } from './servers/specification.js';
import { serveTunnel } from './servers/tunnel.js';
import { serveWhoami } from './servers/whoami.js';

function serve(server: PeerSpecification): Promise<void> {
  switch (server.kind) {
    case 'whoami':
      return serveWhoami(server);
    case 'http':
      return serveHttp(server);
    case 'dns':
      return serveDns(server);
    case 'tunnel':
      return serveTunnel(server);
  }
}

const servers = JSON.parse(process.argv[2] ?? '[]') as PeerSpecification[];
await Promise.all(servers.map(serve));
console.log('ready');
