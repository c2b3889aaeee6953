/** The names of all tests of the repository, read from the sources: what `test('...'` and `errorTest(t, ...` declare. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isVpnErrorCode } from '../../../src/model/errors.js';
import type { Form, Method } from './agent.js';
import { REPOSITORY } from './document.js';
import { errorRow, FORMS, SIGNATURES } from './rows.js';

/** How much of a template's text must be fixed for it to name tests: less would fit anything. */
const LEAST_FIXED_LENGTH = 12;

export class TestNames {
  readonly #literal = new Set<string>();
  readonly #templates: RegExp[] = [];

  constructor() {
    const tests = join(REPOSITORY, 'test');
    for (const file of readdirSync(tests, { recursive: true, encoding: 'utf8' })) {
      if (file.endsWith('.test.ts')) this.#read(readFileSync(join(tests, file), 'utf8'));
    }
  }

  has(name: string): boolean {
    return this.#literal.has(name) || this.#templates.some((template) => template.test(name));
  }

  #read(source: string): void {
    for (const [, , quoted = ''] of source.matchAll(/\btest\(\s*(['"])(.*?)\1,/g)) this.#literal.add(quoted);
    for (const [, template = ''] of source.matchAll(/\btest\(\s*`(.*?)`,/g)) this.#addTemplate(template);
    for (const [, method, code] of source.matchAll(/\berrorTest\(t, '(\w+)', (\d+),/g)) {
      for (const form of FORMS) this.#literal.add(rowOf(method as Method, form, Number(code)));
    }
  }

  /** `${SIGNATURES.setUp[form]}` stands for both signatures; of any other expression only the text around it is known. */
  #addTemplate(template: string): void {
    const [, method, form] = /\$\{SIGNATURES\.(\w+)(?:\.(\w+)|\[form\])\}/.exec(template) ?? [];
    if (method !== undefined) {
      for (const each of form === undefined ? FORMS : [form as Form]) {
        this.#addTemplate(template.replace(/\$\{SIGNATURES[^}]*\}/, SIGNATURES[method as Method][each]));
      }
      return;
    }
    const fixed = template.split(/\$\{.*?\}/);
    if (fixed.length === 1) this.#literal.add(template);
    else if (fixed.join('').trim().length >= LEAST_FIXED_LENGTH) {
      const escaped = fixed.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
      this.#templates.push(new RegExp(`^${escaped.join('.+')}$`));
    }
  }
}

function rowOf(method: Method, form: Form, code: number): string {
  if (!isVpnErrorCode(code)) throw new Error(`${code} is no code of the API`);
  return errorRow(method, form, code);
}
