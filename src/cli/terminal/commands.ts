/** vpnctl's commands in words: the usage, the help for one of them, and what to say to a word that is none. */

import { quote } from '../../model/quote.js';

interface CommandText {
  /** Behind its name. */
  words: string;
  text: readonly string[];
}

const COMMANDS = {
  up: {
    words: '[--wait[=SECONDS]] [--allow-hooks] [--foreground] FILE|NAME|-',
    text: [
      'sets up the VPN of a wg-quick file, and leaves it to a process in the background. NAME is',
      'NAME.conf in ~/.config/vpn-manager, /etc/vpn-manager or /etc/wireguard; - is standard input',
      '--wait: comes back when there is a handshake, or with 75 after SECONDS (30) without one; it goes on trying',
      '--allow-hooks: runs the PreUp, PostUp, PreDown and PostDown of a file as you, and does its SaveConfig',
      '--foreground: stays, and logs to standard error; SIGTERM, SIGINT or vpnctl down ends it',
    ],
  },
  down: {
    words: '[--json] [FILE|NAME|LINK]',
    text: ['ends it. Exit 0 when nothing is up, 1 when the one named is not'],
  },
  status: {
    words: '[--json]',
    text: [
      "what VPNs are up: your own, or as root everybody's; of your own tunnels also peers, endpoints,",
      'handshakes, bytes, cipher and offload. wg show works, too, where status says so',
    ],
  },
  wg: { words: 'genkey|genpsk|pubkey', text: ['keys, as wg(8) makes them'] },
  leaks: { words: '[--json]', text: ['what may leave outside a VPN, and why: of your own, or as root of all'] },
  reload: { words: '', text: ['has the service read its policy file again, as root'] },
  events: { words: '', text: ['what happens to them, one JSON object a line, until interrupted'] },
  run: {
    words: '--app ID -- COMMAND [ARGUMENT...]',
    text: [
      'starts a program as the application ID, for machines where no desktop and no systemd does it:',
      'VPNs that name ID cover it, or leave it out',
    ],
  },
  help: { words: '[COMMAND]', text: ['this, or one of them'] },
} satisfies Record<string, CommandText>;

export type Command = keyof typeof COMMANDS;

const NAMES = Object.keys(COMMANDS) as Command[];
const INDENT = ' '.repeat(9);

export function isCommand(word: string): word is Command {
  return (NAMES as string[]).includes(word);
}

/** All commands, or one, with a line break at the end. */
export function usage(only?: Command): string {
  const lines = (only === undefined ? NAMES : [only]).flatMap((name) => {
    const { words, text }: CommandText = COMMANDS[name];
    return [`vpnctl ${name}${words && ` ${words}`}`, ...text.map((line) => `${INDENT}${line}`)];
  });
  if (only === undefined) lines.push('vpnctl --version', 'The socket is VPND_SOCKET, else /run/vpnd/vpnd.sock.');
  const [first, ...rest] = lines.map((line) => (line.startsWith('vpnctl ') ? `       ${line}` : line));
  return `${[`usage: ${first?.trimStart()}`, ...rest].join('\n')}\n`;
}

/** For a first word that is no command. @example unknownCommand('stauts') // 'unknown command stauts; did you mean status? ...' */
export function unknownCommand(word: string): string {
  const isNear = (name: string) => distance(word, name) <= (name.length > 3 ? 2 : 1);
  const near = NAMES.filter((name) => isNear(name) || (word.length > 1 && name.startsWith(word)));
  const guess = near.length > 0 ? `did you mean ${near.join(' or ')}? ` : '';
  return `unknown command ${/^[\w-]{1,40}$/.test(word) ? word : quote(word)}; ${guess}vpnctl help lists them`;
}

/** Letters to add, drop, replace or swap with their neighbour: the optimal string alignment distance. */
function distance(from: string, to: string): number {
  const rows = [Array.from({ length: to.length + 1 }, (_, column) => column)];
  const at = (row: number, column: number) => rows[row]?.[column] ?? 0;
  for (let row = 1; row <= from.length; row++) {
    rows.push([row]);
    for (let column = 1; column <= to.length; column++) {
      const isSame = from[row - 1] === to[column - 1];
      const isSwap = row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      rows[row]?.push(
        Math.min(
          at(row - 1, column) + 1,
          at(row, column - 1) + 1,
          at(row - 1, column - 1) + (isSame ? 0 : 1),
          isSwap ? at(row - 2, column - 2) + 1 : Number.POSITIVE_INFINITY,
        ),
      );
    }
  }
  return at(from.length, to.length);
}
