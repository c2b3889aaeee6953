/**
 * The kits' types in a project of their own: what the documented examples write compiles under `strict`, with the module names
 * of the document, and what the types forbid does not. `struct` is ArkTS only, so each stands here as the class it becomes.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../..', import.meta.url));

const examples = `
import { socket, vpn } from '@kit.NetworkKit';
import { common } from '@kit.AbilityKit';
import { BusinessError } from '@kit.BasicServicesKit';
import legacy from '@ohos.net.vpn';

declare class CustomComponent {
  getUIContext(): { getHostContext(): common.Context | undefined };
}

export class Index extends CustomComponent {
  private context: common.UIAbilityContext = this.getUIContext().getHostContext() as common.UIAbilityContext;
  private VpnConnection: vpn.VpnConnection = vpn.createVpnConnection(this.context);
  private other: legacy.VpnConnection = legacy.createVpnConnection({});
  functiontest() {
    console.info("vpn createVpnConnection: " + JSON.stringify(this.VpnConnection), this.other);
  }
  SetUp(): void {
    let config: vpn.VpnConfig = {
      addresses: [{ address: { address: "10.0.0.5", family: 1 }, prefixLength: 24 }],
      mtu: 1400,
      dnsAddresses: ["114.114.114.114"]
    }
    this.VpnConnection.setUp(config, (error: BusinessError, data: number) => {
      console.error(JSON.stringify(error));
      console.info("tunfd: " + JSON.stringify(data));
    });
    this.VpnConnection.setUp(config).then((data: number) => {
      console.info("setUp success, tunfd: " + JSON.stringify(data));
    }).catch((err: BusinessError) => {
      console.error("setUp fail" + JSON.stringify(err));
    });
  }
  Protect(): void {
    let tcp: socket.TCPSocket = socket.constructTCPSocketInstance();
    let ipAddress: socket.NetAddress = { address: "0.0.0.0" }
    tcp.bind(ipAddress);
    let netAddress: socket.NetAddress = { address: "192.168.1.11", port: 8888 }
    let addressConnect: socket.TCPConnectOptions = { address: netAddress, timeout: 6000 }
    tcp.connect(addressConnect);
    tcp.getSocketFd().then((tunnelfd: number) => {
      console.info("tunenlfd: " + tunnelfd);
      this.VpnConnection.protect(tunnelfd, (error: BusinessError) => {
        console.error(JSON.stringify(error));
      });
      this.VpnConnection.protect(tunnelfd).then(() => {
        console.info("protect success.");
      }).catch((err: BusinessError) => {
        console.error("protect fail" + JSON.stringify(err));
      });
    });
    let udp: socket.UDPSocket = socket.constructUDPSocketInstance();
    udp.on('message', (value: socket.SocketMessageInfo) => console.info(value.remoteInfo.address));
    udp.on('error', (err: BusinessError) => console.info(err.code));
    udp.send({ data: 'x', address: netAddress }, (err: BusinessError) => console.info(err));
  }
  Destroy(): void {
    this.VpnConnection.destroy((error: BusinessError) => {
      console.error(JSON.stringify(error));
    });
    this.VpnConnection.destroy().then(() => {
      console.info("destroy success.");
    }).catch((err: BusinessError) => {
      console.error("destroy fail" + JSON.stringify(err));
    });
  }
}
`;

const forbidden = `
import { socket, vpn } from '@kit.NetworkKit';
const connection = vpn.createVpnConnection({});
// @ts-expect-error addresses are mandatory
connection.setUp({});
// @ts-expect-error the number, not the socket
connection.protect(socket.constructTCPSocketInstance());
// @ts-expect-error an address is mandatory
socket.constructUDPSocketInstance().bind({ port: 1 });
// @ts-expect-error UDP sockets do not connect
socket.constructUDPSocketInstance().connect({});
`;

for (const [module, moduleResolution] of [
  ['nodenext', 'nodenext'],
  ['esnext', 'bundler'],
]) {
  test(`the documented examples compile with moduleResolution ${moduleResolution}, and misuse does not`, () => {
    const directory = mkdtempSync(join(tmpdir(), 'kit-types-'));
    try {
      mkdirSync(join(directory, 'node_modules'));
      symlinkSync(root, join(directory, 'node_modules/vpn-manager'));
      symlinkSync(join(root, 'node_modules/@types'), join(directory, 'node_modules/@types'));
      const compilerOptions = {
        module,
        moduleResolution,
        target: 'es2022',
        strict: true,
        noEmit: true,
        types: ['vpn-manager/kit', 'node'],
      };
      const files = { 'tsconfig.json': JSON.stringify({ compilerOptions }), 'package.json': '{"type":"module"}' };
      for (const [file, text] of Object.entries({ ...files, 'examples.ts': examples, 'forbidden.ts': forbidden })) {
        writeFileSync(join(directory, file), text);
      }
      const compiler = join(root, 'node_modules/typescript/bin/tsc');
      const { status, stdout } = spawnSync(process.execPath, [compiler], { cwd: directory, encoding: 'utf8' });
      assert.deepEqual([status, stdout], [0, '']);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
}
