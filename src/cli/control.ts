/**
 * What vpnctl and a tunnel's process say to each other, over a socket LINK.control in the runtime folder: one JSON line there, one
 * back. Both ends belong to one user; the process still believes nothing that is longer or otherwise than it has to be.
 */
import { readdirSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { basename, join } from 'node:path';
import { isListening, type LocalServer, listenLocal } from './local-server.js';
import { runtimeFolders } from './runtime-folder.js';
import type { TunnelStatus } from './tunnel-status.js';

const SUFFIX = '.control';
const MAX_QUESTION_BYTES = 256;
/** A tunnel with 10,000 allowed IPs says less. */
const MAX_ANSWER_BYTES = 4 << 20;
/** Going down may include the PreDown commands of a file. */
const CLIENT_PATIENCE_MS = 300_000;
const STATUS_PATIENCE_MS = 5_000;
/** More than any user has; the folder is the user's own. */
const MAX_TUNNELS = 64;

const QUESTIONS = ['status', 'begin', 'down'] as const;
type Question = (typeof QUESTIONS)[number];

export interface Answers {
  status: TunnelStatus;
  /** Begins handshakes; says nothing. */
  begin: Record<string, never>;
  /** `problem`: what did not work on the way down, in a sentence. The process ends behind this answer. */
  down: { problem?: string };
}

/** Each call is one client's question. */
export type ControlBackend = { [Q in Question]: () => Promise<Answers[Q]> };

export function startControlServer(link: string, folder: string, backend: ControlBackend): Promise<LocalServer> {
  return listenLocal(controlSocket(folder, link), CLIENT_PATIENCE_MS, (client) => {
    readLine(client, MAX_QUESTION_BYTES)
      .then(async (line) => {
        const question = QUESTIONS.find((each) => line === JSON.stringify({ ask: each }));
        if (question) client.end(`${JSON.stringify(await backend[question]())}\n`);
        else client.destroy();
      })
      .catch(() => client.destroy());
  });
}

/** Of the tunnel whose vNIC is `link`. */
export function controlSocket(folder: string, link: string): string {
  return join(folder, `${link}${SUFFIX}`);
}

/** A tunnel of this user that answers. */
export interface FoundTunnel {
  path: string;
  status: TunnelStatus;
}

/** Links of this user's tunnels whose process is there and does not answer in time: it hangs, or somebody has stopped it. */
export type SilentLinks = ReadonlySet<string>;

/** Those that answer. */
export async function findTunnels(): Promise<FoundTunnel[]> {
  return (await lookForTunnels()).found;
}

/** Files of processes that are no more are removed on the way. */
export async function lookForTunnels(): Promise<{ found: FoundTunnel[]; silent: SilentLinks }> {
  const found: FoundTunnel[] = [];
  const silent = new Set<string>();
  for (const path of runtimeFolders().flatMap(controlSockets).slice(0, MAX_TUNNELS)) {
    try {
      found.push({ path, status: await ask(path, 'status', STATUS_PATIENCE_MS) });
    } catch {
      // Both sockets of a process that died.
      for (const each of [path, path.replace(/\.control$/, '.sock')]) {
        if (!(await isListening(each))) rmSync(each, { force: true });
        else if (each === path) silent.add(basename(path, SUFFIX));
      }
    }
  }
  return { found, silent };
}

function controlSockets(folder: string): string[] {
  const names = readdirSync(folder).filter((name) => name.endsWith(SUFFIX));
  return names.sort().map((name) => join(folder, name));
}

/** Rejects with an Error when nobody is there, or nobody answers in time. */
export async function ask<Q extends Question>(path: string, question: Q, patienceMs: number): Promise<Answers[Q]> {
  const socket = connect(path);
  const late = setTimeout(() => socket.destroy(new Error(`no answer within ${patienceMs / 1000} s`)), patienceMs);
  try {
    socket.write(`${JSON.stringify({ ask: question })}\n`);
    return JSON.parse(await readLine(socket, MAX_ANSWER_BYTES)) as Answers[Q];
  } finally {
    clearTimeout(late);
    socket.destroy();
  }
}

/** The first line that comes. Rejects when the stream ends without one, or one that is too long. */
function readLine(socket: Socket, maximumBytes: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    socket.on('data', (data: Buffer) => {
      const end = data.indexOf('\n');
      chunks.push(end < 0 ? data : data.subarray(0, end));
      length += data.length;
      if (end >= 0) resolve(Buffer.concat(chunks).toString());
      else if (length > maximumBytes) reject(new Error(`a line of more than ${maximumBytes} bytes`));
    });
    socket.on('error', reject);
    const ended = () => reject(new Error('it ended without an answer'));
    socket.on('end', ended).on('close', ended);
  });
}
