/** Fetches a URL and prints, as JSON, how many bytes came, in what time, and as whom the server saw us. */
import { get } from 'node:http';

const start = performance.now();
get(process.argv[2] ?? '', { timeout: 20_000 }, (response) => {
  let bytes = 0;
  response.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  response.on('end', () => {
    console.log(JSON.stringify({ bytes, ms: performance.now() - start, client: response.headers['x-client'] }));
  });
}).on('timeout', () => process.exit(1));
