/**
 * Checks a DeviceChange as a whole against the device it is for, so that it is made entirely or not at all. Everything that can
 * fail is done here: keys are multiplied, addresses read.
 */
import {
  type CheckedPeerChange,
  checkKey,
  checkPeerChange,
  type DeviceChange,
  isZero,
  MAX_PEERS,
} from './device-config.js';
import { type Identity, identityOf, staticSecretOf } from './noise.js';
import { keyText, type PeerTable } from './peer-table.js';

export interface CheckedChange {
  /** null: no key from now on; undefined: as it is. */
  readonly identity: Identity | null | undefined;
  readonly replacePeers: boolean;
  readonly peers: readonly CheckedPeerChange[];
}

/** Throws an Error that begins with the field. Changes nothing; the identity it returns has a copy of the key. */
export function checkDeviceChange(
  change: DeviceChange,
  identity: Identity | undefined,
  peers: PeerTable,
): CheckedChange {
  const replacePeers = change.replacePeers === true;
  const changes = (change.peers ?? []).map((each, index) => checkPeerChange(each, `peers[${index}]`));
  const stay = replacePeers ? 0 : peers.size;
  if (stay + changes.length > MAX_PEERS && stay + newKeys(changes, peers) > MAX_PEERS) {
    throw new Error(`peers: more than ${MAX_PEERS}`);
  }
  const checked = { identity: newIdentity(change.privateKey, identity), replacePeers, peers: changes };
  try {
    checkPublicKeys(checked, identity, peers);
  } catch (error) {
    checked.identity?.privateKey.fill(0);
    throw error;
  }
  return checked;
}

function newIdentity(privateKey: Uint8Array | undefined, current: Identity | undefined): Identity | null | undefined {
  if (privateKey === undefined) return undefined;
  checkKey(privateKey, 'privateKey');
  if (isZero(privateKey)) return null;
  // The same key again ends no session.
  if (current && Buffer.compare(privateKey, current.privateKey) === 0) return undefined;
  return identityOf(privateKey.slice());
}

function checkPublicKeys(
  { identity: newOne, replacePeers, peers: changes }: CheckedChange,
  current: Identity | undefined,
  peers: PeerTable,
): void {
  const identity = newOne === undefined ? current : (newOne ?? undefined);
  const own = identity && keyText(identity.publicKey);
  for (const [index, { publicKey, remove }] of changes.entries()) {
    const key = keyText(publicKey);
    if (remove) continue;
    if (key === own) throw new Error(`peers[${index}].publicKey: is this device's own`);
    if (!replacePeers && peers.get(publicKey)) continue;
    const secret = staticSecretOf(identity ?? anyIdentity(), publicKey);
    if (!secret) throw new Error(`peers[${index}].publicKey: is of low order, and no key`);
    secret.fill(0);
  }
  const isPeers = identity && !replacePeers && peers.get(identity.publicKey);
  if (isPeers && !changes.some(({ publicKey, remove }) => remove && keyText(publicKey) === own)) {
    throw new Error('privateKey: one of the peers has its public key');
  }
}

function newKeys(changes: readonly CheckedPeerChange[], peers: PeerTable): number {
  const added = changes.filter(({ publicKey }) => !peers.get(publicKey));
  return new Set(added.map(({ publicKey }) => keyText(publicKey))).size;
}

/** Whether a public key is of low order does not depend on the private key it is multiplied by. */
function anyIdentity(): Identity {
  anyone ??= identityOf(new Uint8Array(32).fill(0x40));
  return anyone;
}

let anyone: Identity | undefined;
