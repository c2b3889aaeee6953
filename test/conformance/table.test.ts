/**
 * docs/api.md "Conformance" against the API document, against the contract page where it is there, and against the tests that
 * exist. Needs no lab.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { SENTENCES } from '../../src/model/errors.js';
import { plainText, readContract, SHARED } from './lib/contract.js';
import { DOCUMENT, REPOSITORY, readDocument, readExamples, readRows } from './lib/document.js';
import { TestNames } from './lib/test-names.js';

interface Line {
  /** All cells but the last, joined. */
  what: string;
  /** The test names in backquotes. */
  tests: string[];
  /** The last cell, when it names no test: why not. */
  reason: string;
}

/** The lines of the table below a heading of docs/api.md. */
function readTable(heading: string): Line[] {
  const page = readFileSync(`${REPOSITORY}docs/api.md`, 'utf8');
  const [, section = ''] = page.split(`\n### ${heading}\n`);
  const [body = ''] = section.split(/\n##/);
  const [, , ...lines] = body.split('\n').filter((line) => line.startsWith('|'));
  return lines.map((line) => {
    const cells = line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
    const shown = cells.pop() ?? '';
    const tests = [...shown.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name);
    return { what: cells.join(': '), tests, reason: tests.length > 0 ? '' : shown };
  });
}

const rows = readRows(readDocument());
const ofDocument = readTable('The API document');
const ofContract = readTable('The contract');

test("the repository's copy of the API document is the document", (t) => {
  const original = `${SHARED}/reference/ohos.net.vpn.md`;
  if (!existsSync(original)) return t.skip('there is no shared folder beside the repository');
  assert.equal(readFileSync(DOCUMENT, 'utf8'), readFileSync(original, 'utf8'));
});

test('every row of every table of the API document has its line, and no line is about anything else', () => {
  assert.equal(rows.length, 65);
  assert.deepEqual(
    ofDocument.map(({ what }) => what),
    rows.map(({ name }) => name.replace(/(: \d{3,7}) .*$/, '$1')),
  );
});

test('every row of the API document has the test of its name, or says why it cannot occur', () => {
  for (const [index, { name }] of rows.entries()) {
    const line = ofDocument[index];
    assert.ok(line?.tests.includes(name) || /^Cannot occur: /.test(line?.reason ?? ''), name);
  }
});

test('the sentences of the codes are those of the API document', () => {
  const documented = new Map(rows.flatMap(({ cells: [id = '', text = ''] }) => (/^\d+$/.test(id) ? [[id, text]] : [])));
  assert.deepEqual(Object.fromEntries(documented), SENTENCES);
});

test('every line of the conformance tables names tests that exist, or a reason', () => {
  const names = new TestNames();
  for (const { what, tests, reason } of [...ofDocument, ...ofContract]) {
    assert.ok(tests.length > 0 || /^(Cannot occur|Not in this release|No behaviour|Said): /.test(reason), what);
    for (const name of tests) assert.ok(names.has(name), `${what}: there is no test "${name}"`);
  }
});

test('every sentence of the contract has its lines, and every line quotes the contract, in its order', (t) => {
  const sentences = readContract();
  if (!sentences) return t.skip('there is no shared folder beside the repository');
  const quotes = ofContract.map(({ what }) => plainText(what));
  let next = 0;
  for (const sentence of sentences) {
    const first = next;
    while (next < quotes.length && sentence.includes(quotes[next] ?? '')) next++;
    assert.ok(next > first, `no line quotes: ${sentence}; the next line quotes: ${quotes[next]}`);
  }
  assert.equal(next, quotes.length, `no sentence of the contract: ${quotes[next]}`);
});

test('the API document has seven examples', () => {
  assert.equal(readExamples(readDocument()).length, 7);
});
