/** nftables' notifications (linux/netfilter/nfnetlink.h, nf_tables.h): which table each of them is about. Pure. */
import { readAttributes } from './netlink.js';

const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG_NEWGEN = 15;
/** NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE and the others are all this. */
const NFTA_TABLE = 1;
/** struct nfgenmsg */
const HEADER = 4;

/**
 * The name of the table, of whatever family, that was changed or in which something was. Undefined for the message that only
 * ends a transaction. Flushing the rule set tells each table.
 */
export function changedTable(type: number, payload: Buffer): string | undefined {
  if (type >>> 8 !== NFNL_SUBSYS_NFTABLES || (type & 0xff) === NFT_MSG_NEWGEN) return undefined;
  return readAttributes(payload, HEADER).get(NFTA_TABLE)?.toString('latin1').replace(/\0.*$/s, '');
}
