/**
 * Deletes connections from the kernel's table (linux/netfilter/nfnetlink_conntrack.h), so that the next packet of the same
 * addresses and ports is judged, and translated, anew. The kernel picks them out: by mark, and by protocol and port.
 */
import { type Family, IPV6 } from '../model/vpn-types.js';
import type { NetlinkRequest } from './netlink-socket.js';

const AF_UNSPEC = 0;
const AF_INET = 2;
const AF_INET6 = 10;
const NFNL_SUBSYS_CTNETLINK = 1;
const IPCTNL_MSG_CT_DELETE = 2;
/** The strict parser wants it said. */
const NLA_F_NESTED = 0x8000;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_DST_PORT = 3;
const CTA_MARK = 8;
const CTA_MARK_MASK = 21;
const CTA_FILTER = 25;
const CTA_FILTER_ORIG_FLAGS = 1;
/** Places of these fields in the kernel's list of what a filter may compare. */
const COMPARE_PROTO_NUM = 1 << 3;
const COMPARE_PROTO_DST_PORT = 1 << 5;

export interface ConnectionFilter {
  mark: { value: number; mask: number };
  /** IP protocol and port of the first packet's destination; the kernel compares them within one family. */
  to?: { family: Family; protocol: number; port: number };
}

/** struct nfgenmsg: family, version, resource. With version 0 the family would mean nothing. */
function header(family: Family | undefined): Buffer {
  return Buffer.from([family === undefined ? AF_UNSPEC : family === IPV6 ? AF_INET6 : AF_INET, 1, 0, 0]);
}

export function deleteConnections({ mark, to }: ConnectionFilter): NetlinkRequest {
  return {
    call: 'IPCTNL_MSG_CT_DELETE',
    describe: () => `connections with mark 0x${mark.value.toString(16)}`,
    write(writer, flags, sequence) {
      writer.begin((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE, flags, sequence, header(to?.family));
      if (to) {
        writer.nested(CTA_TUPLE_ORIG | NLA_F_NESTED, () =>
          writer.nested(CTA_TUPLE_PROTO | NLA_F_NESTED, () => {
            writer.attribute(CTA_PROTO_NUM, Buffer.from([to.protocol]));
            writer.attribute(CTA_PROTO_DST_PORT, portBytes(to.port));
          }),
        );
        writer.nested(CTA_FILTER | NLA_F_NESTED, () =>
          writer.attributeU32(CTA_FILTER_ORIG_FLAGS, COMPARE_PROTO_NUM | COMPARE_PROTO_DST_PORT),
        );
      }
      writer.attribute(CTA_MARK, bigEndian(mark.value));
      writer.attribute(CTA_MARK_MASK, bigEndian(mark.mask));
      writer.end();
    },
  };
}

function portBytes(port: number): Buffer {
  return Buffer.from([port >> 8, port & 255]);
}

function bigEndian(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}
