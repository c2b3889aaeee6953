/**
 * How the socket objects report what the kernel refused: OpenHarmony's socket convention, 2301000 + errno, in an error of the
 * same shape as the VPN calls' BusinessError.
 */
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { type ErrorCause, KernelError } from '../model/errors.js';

const BASE = 2301000;
const numbers = new Map<string, number>(Object.entries(constants.errno));

export class SocketError extends Error {
  override readonly name = 'BusinessError';
  readonly code: number;
  readonly data: ErrorCause;

  constructor(errnoName: string, reason: string) {
    const number = numbers.get(errnoName) ?? constants.errno.EIO;
    const sentence = getSystemErrorMap().get(-number)?.[1] ?? errnoName;
    super(`${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}. ${reason}`);
    this.code = BASE + number;
    this.data = { reason };
  }

  toJSON(): { code: number; message: string; data: ErrorCause } {
    return { code: this.code, message: this.message, data: this.data };
  }
}

/** Translates the errors of the kernel wrappers and of node's streams. A stream that has ended is EPIPE, as for write(2). */
export function socketError(error: unknown): SocketError {
  if (error instanceof SocketError) return error;
  if (error instanceof KernelError) return new SocketError(error.errnoName, error.message);
  const { code, message } = error as NodeJS.ErrnoException;
  return new SocketError(code !== undefined && numbers.has(code) ? code : 'EPIPE', message);
}
