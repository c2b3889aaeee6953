/** The users of many-vpns.ts. */
export const FIRST_OF_CROWD = 10_000;
export const LARGEST_CROWD = 1000;

const MANAGE_VPN = 'ohos.permission.MANAGE_VPN';

/** A policy that makes callers of all of them, and of `others`. */
export function crowdPolicy(...others: number[]): object {
  const crowd = Array.from({ length: LARGEST_CROWD }, (_, index) => FIRST_OF_CROWD + index);
  return {
    callers: [...others, ...crowd].map((uid) => ({ match: { uid }, system: true, permissions: [MANAGE_VPN] })),
  };
}
