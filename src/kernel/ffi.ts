/**
 * The only door to native code: every C function that vpn-manager calls is declared here, once, and nothing else imports
 * koffi. Signatures follow the man pages; `ssize_t` is `intptr_t` to koffi. A wrong signature is a crash that no handler
 * catches, so a new one needs a test that calls it.
 *
 * Buffers passed here must be longer than 64 bytes or come from `Buffer.alloc` of a page (V8 may move smaller ones), unless
 * the call is over before anything else runs, which is the case for every synchronous call.
 */
import { closeSync, openSync } from 'node:fs';
import { constants } from 'node:os';
import koffi from 'koffi';
import { KernelError } from '../model/errors.js';
import { unlessAbsent } from './absence.js';

type Bytes = Uint8Array | null;
type Native = ReturnType<ReturnType<typeof koffi.load>['func']>;

/** The running process: glibc or musl, whichever node is linked with, needs no file name this way. */
const self = koffi.load(null);
const declare = <T>(prototype: string): T => self.func(prototype) as unknown as T;

export const libc = {
  socket: declare<(domain: number, type: number, protocol: number) => number>('int socket(int, int, int)'),
  socketpair: declare<(domain: number, type: number, protocol: number, pair: Uint8Array) => number>(
    'int socketpair(int, int, int, uint8_t *)',
  ),
  bind: declare<(fd: number, address: Uint8Array, length: number) => number>(
    'int bind(int, const uint8_t *, uint32_t)',
  ),
  listen: declare<(fd: number, backlog: number) => number>('int listen(int, int)'),
  accept4: declare<(fd: number, address: Bytes, length: Bytes, flags: number) => number>(
    'int accept4(int, uint8_t *, uint8_t *, int)',
  ),
  connect: declare<(fd: number, address: Uint8Array, length: number) => number>(
    'int connect(int, const uint8_t *, uint32_t)',
  ),
  shutdown: declare<(fd: number, how: number) => number>('int shutdown(int, int)'),
  getsockname: declare<(fd: number, address: Uint8Array, length: Uint8Array) => number>(
    'int getsockname(int, uint8_t *, uint8_t *)',
  ),
  getsockopt: declare<(fd: number, level: number, name: number, value: Uint8Array, length: Uint8Array) => number>(
    'int getsockopt(int, int, int, uint8_t *, uint8_t *)',
  ),
  setsockopt: declare<(fd: number, level: number, name: number, value: Uint8Array, length: number) => number>(
    'int setsockopt(int, int, int, const uint8_t *, uint32_t)',
  ),
  send: declare<(fd: number, data: Uint8Array, length: number, flags: number) => number>(
    'intptr_t send(int, const uint8_t *, size_t, int)',
  ),
  sendto: declare<
    (fd: number, data: Uint8Array, length: number, flags: number, address: Bytes, addressLength: number) => number
  >('intptr_t sendto(int, const uint8_t *, size_t, int, const uint8_t *, uint32_t)'),
  recv: declare<(fd: number, data: Uint8Array, length: number, flags: number) => number>(
    'intptr_t recv(int, uint8_t *, size_t, int)',
  ),
  sendmsg: declare<(fd: number, header: Uint8Array, flags: number) => number>('intptr_t sendmsg(int, uint8_t *, int)'),
  recvmsg: declare<(fd: number, header: Uint8Array, flags: number) => number>('intptr_t recvmsg(int, uint8_t *, int)'),
  ioctl: declare<(fd: number, request: number, argument: Bytes) => number>('int ioctl(int, unsigned long, uint8_t *)'),
  fcntl: declare<(fd: number, command: number, argument: number) => number>('int fcntl(int, int, intptr_t)'),
  close: declare<(fd: number) => number>('int close(int)'),
  read: declare<(fd: number, data: Uint8Array, length: number) => number>('intptr_t read(int, uint8_t *, size_t)'),
  write: declare<(fd: number, data: Uint8Array, length: number) => number>(
    'intptr_t write(int, const uint8_t *, size_t)',
  ),
  poll: declare<(fds: Uint8Array, count: number, timeoutMs: number) => number>(
    'int poll(uint8_t *, unsigned long, int)',
  ),
  epoll_create1: declare<(flags: number) => number>('int epoll_create1(int)'),
  epoll_ctl: declare<(epfd: number, operation: number, fd: number, event: Bytes) => number>(
    'int epoll_ctl(int, int, int, uint8_t *)',
  ),
  epoll_wait: declare<(epfd: number, events: Uint8Array, maximum: number, timeoutMs: number) => number>(
    'int epoll_wait(int, uint8_t *, int, int)',
  ),
  sched_setscheduler: declare<(thread: number, policy: number, parameters: Uint8Array) => number>(
    'int sched_setscheduler(int, int, const uint8_t *)',
  ),
  prctl: declare<(operation: number, a: number, b: number, c: number, d: number) => number>(
    'int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)',
  ),
  eventfd: declare<(initial: number, flags: number) => number>('int eventfd(unsigned int, int)'),
  syscall: declare<(number: number, a: number, b: number, c: number) => number>('long syscall(long, long, long, long)'),
  /** bpf(2) has no libc wrapper; 321 on x86_64, 280 on arm64. */
  syscallBytes: self.func('syscall', 'long', ['long', 'long', 'uint8_t *', 'long']) as unknown as (
    number: number,
    command: number,
    attributes: Uint8Array,
    size: number,
  ) => number,
};

/**
 * The calls of a tunnel's data path, made a hundred thousand times a second: memory is given by address, always one inside an
 * Arena (arena.ts), which outlives every call. An integer costs koffi 50 ns less than a buffer or a typed pointer.
 */
export const libcAt = {
  read: declare<(fd: number, address: number, length: number) => number>('intptr_t read(int, uintptr_t, size_t)'),
  write: declare<(fd: number, address: number, length: number) => number>('intptr_t write(int, uintptr_t, size_t)'),
  poll: declare<(fds: number, count: number, timeoutMs: number) => number>('int poll(uintptr_t, unsigned long, int)'),
  clock_gettime: declare<(clock: number, time: number) => number>('int clock_gettime(int, uintptr_t)'),
  sendmsg: declare<(fd: number, header: number, flags: number) => number>('intptr_t sendmsg(int, uintptr_t, int)'),
  recvmsg: declare<(fd: number, header: number, flags: number) => number>('intptr_t recvmsg(int, uintptr_t, int)'),
};

/** What is used of OpenSSL's EVP interface (EVP_EncryptInit(3)); addresses as in libcAt, 0 for NULL. */
export interface OpenSsl {
  /** 'node': the OpenSSL that node brings along; otherwise the shared library's name. */
  readonly name: string;
  EVP_CIPHER_CTX_new(): number;
  EVP_CIPHER_CTX_free(context: number): void;
  EVP_chacha20_poly1305(): number;
  EVP_CipherInit_ex(context: number, cipher: number, engine: number, key: number, iv: number, encrypt: number): number;
  EVP_Cipher(context: number, to: number, from: number, length: number): number;
  EVP_CipherFinal_ex(context: number, to: number, length: number): number;
  /** An array of OSSL_PARAM (OSSL_PARAM(3)); OpenSSL 3. */
  EVP_CIPHER_CTX_get_params(context: number, parameters: number): number;
  EVP_CIPHER_CTX_set_params(context: number, parameters: number): number;
}

/** Those that can be loaded here, the best first. None: a node without OpenSSL (Electron has BoringSSL) and no library. */
export function openSsls(): OpenSsl[] {
  return [
    { name: 'node', load: () => self },
    { name: 'libcrypto.so.3', load: () => koffi.load('libcrypto.so.3') },
  ].flatMap(({ name, load }) => {
    try {
      const library = load();
      const at = 'uintptr_t';
      return {
        name,
        EVP_CIPHER_CTX_new: library.func('EVP_CIPHER_CTX_new', at, []),
        EVP_CIPHER_CTX_free: library.func('EVP_CIPHER_CTX_free', 'void', [at]),
        EVP_chacha20_poly1305: library.func('EVP_chacha20_poly1305', at, []),
        EVP_CipherInit_ex: library.func('EVP_CipherInit_ex', 'int', [at, at, at, at, at, 'int']),
        EVP_Cipher: library.func('EVP_Cipher', 'int', [at, at, at, 'unsigned int']),
        EVP_CipherFinal_ex: library.func('EVP_CipherFinal_ex', 'int', [at, at, at]),
        EVP_CIPHER_CTX_get_params: library.func('EVP_CIPHER_CTX_get_params', 'int', [at, at]),
        EVP_CIPHER_CTX_set_params: library.func('EVP_CIPHER_CTX_set_params', 'int', [at, at]),
      } as unknown as OpenSsl;
    } catch {
      return [];
    }
  });
}

/** The same functions in koffi's thread pool: for kernel work of bounded length only, never for waiting for a peer. */
export const libcAsync = {
  send: promised<[fd: number, data: Uint8Array, length: number, flags: number]>(libc.send as unknown as Native),
  close: promised<[fd: number]>(libc.close as unknown as Native),
};

/** A native function in koffi's thread pool. */
export function inThreadPool<A extends unknown[]>(native: (...args: A) => number): (...args: A) => Promise<number> {
  return promised<A>(native as unknown as Native);
}

function promised<A extends unknown[]>(native: Native): (...args: A) => Promise<number> {
  const call = native as unknown as { async: (...args: unknown[]) => void };
  return (...args) =>
    new Promise((resolve, reject) => {
      call.async(...args, (error: Error | null, result: number) => (error ? reject(error) : resolve(result)));
    });
}

/** errno of this thread's last synchronous native call. */
export function errno(): number {
  return koffi.errno();
}

/** The address of a buffer, for structs that contain pointers. The buffer must outlive the call and be over 64 bytes. */
export function addressOf(buffer: Uint8Array): bigint {
  return BigInt(koffi.address(buffer) as bigint | number);
}

/** Opens a shared library by soname; undefined when it is not installed. */
export function openLibrary(soname: string): { func<T>(prototype: string): T } | undefined {
  try {
    const library = koffi.load(soname);
    return { func: <T>(prototype: string) => library.func(prototype) as unknown as T };
  } catch {
    return undefined;
  }
}

/** The passwd and group databases, through NSS, so that users from LDAP or systemd-homed count too. */
const passwd = koffi.struct('passwd', {
  pw_name: 'str',
  pw_passwd: 'str',
  pw_uid: 'uint32_t',
  pw_gid: 'uint32_t',
  pw_gecos: 'str',
  pw_dir: 'str',
  pw_shell: 'str',
});
const group = koffi.struct('group', { gr_name: 'str', gr_passwd: 'str', gr_gid: 'uint32_t', gr_mem: 'void *' });
const passwdPointer = koffi.pointer(passwd);
const groupPointer = koffi.pointer(group);
const getpwnam = self.func('getpwnam', passwdPointer, ['str']);
const getpwuid = self.func('getpwuid', passwdPointer, ['uint32_t']);
const getgrnam = self.func('getgrnam', groupPointer, ['str']);

export interface PasswdEntry {
  pw_name: string;
  pw_uid: number;
  pw_gid: number;
}

/** getpwnam(3): with these a null says that it could not be looked up; with any other errno, or none, that there is no entry. */
const LOOKUP_FAILURES = ['EINTR', 'EIO', 'EMFILE', 'ENFILE', 'ENOMEM'] as const;

/**
 * The entry's address; null when there is none. Throws KernelError. When one database cannot be read, glibc asks the next, and its
 * "none" is all that is heard: so none it is only while `file`, the first one's, can be read.
 */
function lookedUp(call: string, object: string, file: string, look: () => unknown): unknown {
  koffi.errno(0);
  const pointer = look();
  if (pointer) return pointer;
  const number = koffi.errno();
  const failure = LOOKUP_FAILURES.find((name) => constants.errno[name] === number);
  if (failure !== undefined) throw new KernelError(call, object, failure);
  unlessAbsent('open', file, () => closeSync(openSync(file, 'r')));
  return null;
}

/** All throw KernelError when the database cannot be read. */
export const nss = {
  userByName: (name: string): PasswdEntry | undefined => {
    const pointer = lookedUp('getpwnam', name, '/etc/passwd', () => getpwnam(name));
    return pointer ? (koffi.decode(pointer, passwd) as PasswdEntry) : undefined;
  },
  userById: (uid: number): PasswdEntry | undefined => {
    const pointer = lookedUp('getpwuid', String(uid), '/etc/passwd', () => getpwuid(uid));
    return pointer ? (koffi.decode(pointer, passwd) as PasswdEntry) : undefined;
  },
  groupByName: (name: string): { gr_name: string; gr_gid: number } | undefined => {
    const pointer = lookedUp('getgrnam', name, '/etc/group', () => getgrnam(name));
    return pointer ? (koffi.decode(pointer, group) as { gr_name: string; gr_gid: number }) : undefined;
  },
};
