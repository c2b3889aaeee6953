/**
 * A program under measurement: commands go to its standard input as "NUMBER WORDS", and it says "done NUMBER RESULT" when it
 * has carried one out.
 */
import type { LabProcess } from '../../test/lab/lib/process.js';

export class Driver {
  readonly #process: LabProcess;
  #number = 0;

  constructor(process: LabProcess) {
    this.#process = process;
  }

  /** What stands behind "done NUMBER". */
  async ask(words: string, timeoutMs = 120_000): Promise<string> {
    const number = ++this.#number;
    this.#process.write(`${number} ${words}\n`);
    const [, result = ''] = await this.#process.waitFor(new RegExp(`^done ${number}(?: (.*))?$`, 'm'), timeoutMs);
    return result;
  }

  /**
   * Milliseconds that carrying out a command takes. By the program's own clock; for one that has none (a shell), until the
   * answer is here, less what that takes for a command that does nothing.
   */
  async time(words: string): Promise<number> {
    const start = performance.now();
    const own = await this.ask(words);
    if (own !== '') return Number(own);
    const elapsed = performance.now() - start;
    const again = performance.now();
    await this.ask('nop');
    return elapsed - (performance.now() - again);
  }

  async stop(): Promise<void> {
    await this.#process.kill('SIGKILL');
  }
}
