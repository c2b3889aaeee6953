/**
 * As much of DNS as it takes to ask a recursive resolver for the addresses of a name (RFC 1035, section 4; AAAA: RFC 3596). Pure.
 *
 *   id 2 | flags 2 | questions 2 | answers 2 | authorities 2 | additional 2 | question: name, type 2, class 2
 *   record: name | type 2 | class 2 | time to live 4 | length 2 | data
 */
import { canonicalAddress } from '../model/address.js';

export const TYPE_A = 1;
export const TYPE_AAAA = 28;
const CLASS_IN = 1;
const HEADER_BYTES = 12;
const RECURSION_DESIRED = 0x0100;
const IS_RESPONSE = 0x8000;
const OPCODE_AND_RCODE = 0x780f;
const NXDOMAIN = 3;
const POINTER = 0xc0;
const MAX_NAME_BYTES = 255;

/** `name`: a host name in ASCII, with or without the dot at its end. Undefined when DNS has no such names. */
export function encodeQuestion(id: number, name: string, type: number): Buffer | undefined {
  const labels = name.replace(/\.$/, '').split('.');
  if (labels.some((label) => !/^[\x21-\x7e]{1,63}$/.test(label))) return undefined;
  const encoded = labels.flatMap((label) => [Buffer.from([label.length]), Buffer.from(label, 'latin1')]);
  const question = Buffer.concat([...encoded, Buffer.from([0, 0, type, 0, CLASS_IN])]);
  if (question.length > MAX_NAME_BYTES + 4) return undefined;
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(RECURSION_DESIRED, 2);
  header.writeUInt16BE(1, 4);
  return Buffer.concat([header, question]);
}

/**
 * The addresses in the answer to `question`: empty when the name has none of that type, undefined when the message is none of
 * that question's, is damaged, or says that the resolver could not tell. Aliases on the way are the resolver's business.
 */
export function decodeAnswer(message: Uint8Array, question: Uint8Array): string[] | undefined {
  const [bytes, asked] = [bufferOf(message), bufferOf(question)];
  if (resultOf(bytes, asked) !== 0) return undefined;
  const type = asked.readUInt16BE(asked.length - 4);
  const addresses: string[] = [];
  let at = asked.length;
  for (let left = bytes.readUInt16BE(6); left > 0; left--) {
    at = endOfName(bytes, at);
    if (at + 10 > bytes.length) return undefined;
    const data = at + 10;
    const length = bytes.readUInt16BE(at + 8);
    if (data + length > bytes.length) return undefined;
    if (bytes.readUInt16BE(at) === type && bytes.readUInt16BE(at + 2) === CLASS_IN) {
      const address = addressOf(bytes.subarray(data, data + length), type);
      if (address !== undefined) addresses.push(address);
    }
    at = data + length;
  }
  return addresses;
}

/** Whether it is the answer to `question` that there is no such name (RFC 8020), of whatever type. */
export function saysNoSuchName(message: Uint8Array, question: Uint8Array): boolean {
  return resultOf(bufferOf(message), bufferOf(question)) === NXDOMAIN;
}

/** The code of the answer to that question; undefined when it is none. */
function resultOf(bytes: Buffer, asked: Buffer): number | undefined {
  if (bytes.length < asked.length || bytes.readUInt16BE(0) !== asked.readUInt16BE(0)) return undefined;
  const flags = bytes.readUInt16BE(2);
  const isAnswer = (flags & IS_RESPONSE) !== 0 && bytes.readUInt16BE(4) === 1 && isSameName(bytes, asked);
  return isAnswer ? flags & OPCODE_AND_RCODE : undefined;
}

function bufferOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

/** Names are equal in any case; lengths of labels are no letters. */
function isSameName(bytes: Buffer, asked: Buffer): boolean {
  const [left, right] = [bytes, asked].map((each) => each.toString('latin1', HEADER_BYTES, asked.length).toLowerCase());
  return left === right;
}

/** Behind the name at `at`; behind the message when there is none. */
function endOfName(bytes: Buffer, at: number): number {
  for (let here = at; here < bytes.length; ) {
    const length = bytes[here] ?? 0;
    if (length === 0) return here + 1;
    if ((length & POINTER) === POINTER) return here + 2;
    here += length + 1;
  }
  return bytes.length;
}

function addressOf(data: Buffer, type: number): string | undefined {
  if (type === TYPE_A) return data.length === 4 ? data.join('.') : undefined;
  if (data.length !== 16) return undefined;
  const groups = Array.from({ length: 8 }, (_, index) => data.readUInt16BE(2 * index).toString(16));
  return canonicalAddress(groups.join(':'));
}
