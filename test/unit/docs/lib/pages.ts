/** The project's pages, and the code in them. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** This file is dist/test/unit/docs/lib/pages.js. */
export const REPOSITORY = fileURLToPath(new URL('../../../../..', import.meta.url)).replace(/\/$/, '');

const atTop = ['README.md', 'ARCHITECTURE.md', 'SECURITY.md', 'CONTRIBUTING.md', 'CHANGELOG.md'];
/** Their paths in the repository. */
export const PAGES = [...atTop, ...readdirSync(join(REPOSITORY, 'docs')).map((name) => `docs/${name}`)];

/** The fenced blocks of one of these languages. */
export function codeBlocks(page: string, ...languages: string[]): string[] {
  const text = readFileSync(join(REPOSITORY, page), 'utf8');
  const fenced = new RegExp(`^\`\`\`(?:${languages.join('|')})\\n(.*?)^\`\`\``, 'gms');
  return [...text.matchAll(fenced)].map(([, block = '']) => block);
}

export interface Program {
  /** From its first line, `// client.mjs`, maybe with more words behind it. */
  name: string;
  text: string;
}

export function programs(page: string): Program[] {
  return codeBlocks(page, 'js', 'ts').map((text) => {
    const name = /^\/\/ ([\w-]+\.(?:mjs|mts))\b/.exec(text)?.[1];
    assert.ok(name, `${page}: a program without its name in the first line:\n${text}`);
    return { name, text };
  });
}
