/** A user who asks resolvers, and a resolver of the host itself that says what it was asked. */
import type { LabHost } from './host.js';

/** See attackers/asker.py. */
export interface Question {
  name: string;
  protocol: 'udp' | 'udplite' | 'tcp' | 'mptcp';
  target: string;
  port?: number;
  device?: string;
  source?: string;
  from?: number;
  unconnected?: boolean;
  keep?: string;
}

export interface Asker {
  uid: number;
  /** For each question `answered`, `silence`, or the errno's name. */
  ask(questions: readonly (Question | { again: string; name: string })[]): Promise<string[]>;
}

export async function startAsker(host: LabHost, uid: number, cgroup = ''): Promise<Asker> {
  const program = ['python3', '-SE', host.path('test/lab/lib/attackers/asker.py'), String(uid)];
  const enter = cgroup === '' ? ['exec "$@"', 'sh'] : ['echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup];
  const child = host.spawn('sh', ['-c', ...enter, ...program]);
  await child.waitFor(/^ready$/m);
  let told = 0;
  return {
    uid,
    ask: async (questions) => {
      if (questions.length === 0) return [];
      child.write(questions.map((each) => `${JSON.stringify(each)}\n`).join(''));
      const wanted = new RegExp(`^ready\\n(?:.*\\n){${told}}((?:.*\\n){${questions.length}})`);
      told += questions.length;
      const [, lines = ''] = await child.waitFor(wanted, 20_000 + questions.length * 4000);
      return lines.trim().split('\n');
    },
  };
}

export interface Stub {
  /** What it was asked so far: `PROTOCOL NAME`, `PROTOCOL -` for a connection. */
  asked(): string[];
}

/** Listens at these addresses and ports. */
export async function startStub(host: LabHost, where: readonly [address: string, port: number][]): Promise<Stub> {
  const script = host.path('test/lab/lib/servers/stub.py');
  const child = host.spawn('python3', ['-SE', script, ...where.flat().map(String)]);
  await child.waitFor(/^ready$/m);
  return { asked: () => child.stdout.trim().split('\n').slice(1) };
}
