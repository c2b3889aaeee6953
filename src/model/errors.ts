/**
 * The three kinds of error. `BusinessError` is the only one that callers of the API ever see; `KernelError` says what the
 * kernel refused, in words; `ProtocolError` is a bad frame on the socket.
 */

/** Every code of the API with its documented sentence. */
export const SENTENCES = {
  201: 'Permission denied.',
  202: 'Non-system applications use system APIs.',
  401: 'Parameter error.',
  2200001: 'Invalid parameter value.',
  2200002: 'Operation failed. Cannot connect to service.',
  2200003: 'System internal error.',
  2203001: 'VPN creation denied. Check the user type.',
  2203002: 'VPN already exists.',
  2203004: 'Invalid socket file descriptor.',
} as const;

export type VpnErrorCode = keyof typeof SENTENCES;

/** Machine-readable cause: the field at fault, as a path such as `config.routes[3].gateway`, and why. */
export interface ErrorCause {
  field?: string;
  reason: string;
}

export function isVpnErrorCode(code: unknown): code is VpnErrorCode {
  return typeof code === 'number' && Object.hasOwn(SENTENCES, code);
}

/**
 * The API's error: numeric `code`, the documented sentence followed by one that says which field and why, and the same as
 * `data`. `toJSON` exists because every documented example logs `JSON.stringify(error)`.
 *
 * @example new BusinessError(401, 'config.mtu', '"big" is not a number').message
 *          // 'Parameter error. config.mtu: "big" is not a number'
 */
export class BusinessError<T = ErrorCause> extends Error {
  override readonly name = 'BusinessError';
  readonly code: number;
  readonly data: T;

  constructor(code: VpnErrorCode, field: string | undefined, reason: string) {
    super(`${SENTENCES[code]} ${field === undefined ? reason : `${field}: ${reason}`}`);
    this.code = code;
    this.data = (field === undefined ? { reason } : { field, reason }) as T;
  }

  toJSON(): { code: number; message: string; data: T } {
    return { code: this.code, message: this.message, data: this.data };
  }
}

/** The kernel said no: which call, on which object in words, errno's name, and the extended ack's text where there is one. */
export class KernelError extends Error {
  override readonly name = 'KernelError';
  readonly call: string;
  readonly errnoName: string;
  readonly extendedAck: { message?: string; offset?: number } | undefined;

  constructor(call: string, object: string, errnoName: string, extendedAck?: { message?: string; offset?: number }) {
    const detail = extendedAck?.message === undefined ? '' : ` (${extendedAck.message})`;
    super(`${call} ${object}: ${errnoName}${detail}`);
    this.call = call;
    this.errnoName = errnoName;
    this.extendedAck = extendedAck;
  }
}

/** A peer broke the protocol of the service's socket. The connection ends. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}
