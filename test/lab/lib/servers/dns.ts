/** A DNS server (RFC 1035) that answers every question with its own identity. Too small for anything but tests. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, isIPv6 } from 'node:net';
import type { Dns } from './specification.js';

const TYPE_A = 1;
const TYPE_TXT = 16;
const TYPE_AAAA = 28;

export async function serveDns(dns: Dns): Promise<void> {
  const { address = '::', port = 53 } = dns;
  const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
  socket.on('message', (query, client) => socket.send(answer(query, dns), client.port, client.address, () => {}));
  socket.bind(port, address);
  const server = createServer((client) => {
    let received = Buffer.alloc(0);
    client.on('error', () => {});
    client.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      // glibc sends both its questions before it reads an answer (RFC 7766, 6.2.1.1).
      for (let end = 0; received.length >= 2; received = received.subarray(end)) {
        end = 2 + received.readUInt16BE(0);
        if (received.length < end) return;
        const reply = answer(received.subarray(2, end), dns);
        client.write(Buffer.concat([Buffer.from([reply.length >> 8, reply.length & 255]), reply]));
      }
    });
  });
  server.listen(port, address);
  await Promise.all([once(socket, 'listening'), once(server, 'listening')]);
}

/** Header (id, flags, 1 question), the question as asked, and one record that points back to its name. */
function answer(query: Buffer, dns: Dns): Buffer {
  let end = 12;
  while (end < query.length && query[end] !== 0) end += 1 + (query[end] ?? 0);
  const type = query.readUInt16BE(end + 1);
  const question = query.subarray(12, end + 5);
  const { rcode = 0 } = dns;
  const value = rcode === 0 ? recordValue(type, dns) : undefined;
  const header = Buffer.from([query[0] ?? 0, query[1] ?? 0, 0x81, 0x80 | rcode, 0, 1, 0, value ? 1 : 0, 0, 0, 0, 0]);
  if (!value) return Buffer.concat([header, question]);
  const record = Buffer.from([0xc0, 12, 0, type, 0, 1, 0, 0, 0, 1, value.length >> 8, value.length & 255]);
  return Buffer.concat([header, question, record, value]);
}

function recordValue(type: number, { name, a, aaaa }: Dns): Buffer | undefined {
  if (type === TYPE_A && a !== '') return Buffer.from(a.split('.').map(Number));
  if (type === TYPE_TXT) return Buffer.concat([Buffer.from([name.length]), Buffer.from(name)]);
  if (type !== TYPE_AAAA || aaaa === undefined) return undefined;
  const [left = '', right = ''] = aaaa.split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const zeros = Array(8 - groups(left).length - groups(right).length).fill('0');
  return Buffer.from(
    [...groups(left), ...zeros, ...groups(right)].map((group) => group.padStart(4, '0')).join(''),
    'hex',
  );
}
