/**
 * The one order in which a VPN comes down, whether it stood or its setUp failed half-way. The vNIC goes first, so that covered
 * traffic meets `unreachable` behind it; then the sockets that have its addresses, while the lock still knows these; then what leads
 * there, and the firewall behind it.
 */
const ORDER = [
  'link',
  'resolver',
  'sockets',
  'lockdown',
  'rules',
  'egressLock',
  'firewall',
  'connections',
  'programs',
  'sharedRules',
  'surroundings',
] as const;

/** What of a VPN has to be taken back; named by what goes. */
export type Part = (typeof ORDER)[number];

export type TakeBack = Record<Part, () => void | Promise<void>>;

export const EVERY_PART: ReadonlySet<Part> = new Set(ORDER);

/** A part that fails does not keep the others from going; its error is returned. */
export async function takeDown(takeBack: TakeBack, parts: ReadonlySet<Part>): Promise<Error[]> {
  const errors: Error[] = [];
  for (const part of ORDER) {
    if (!parts.has(part)) continue;
    try {
      await takeBack[part]();
    } catch (error) {
      errors.push(error as Error);
    }
  }
  return errors;
}
