/** The C programs of this folder, compiled where there is a compiler. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The program's path; undefined without a compiler, with one line that says so. This file is dist/bench/lib/compile.js. */
export function compile(name: string, directory: string): string | undefined {
  const source = fileURLToPath(new URL(`../../../bench/${name}.c`, import.meta.url));
  const program = join(directory, name);
  const { status, error, stderr } = spawnSync('cc', ['-O2', '-o', program, source, '-ldl'], { encoding: 'utf8' });
  if (status === 0) return program;
  console.log(`${name}.c is left out: ${error ? 'there is no C compiler (cc)' : stderr}`);
  return undefined;
}
