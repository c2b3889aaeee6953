/**
 * The sentences of the contract page that stands beside the repository where the project is developed, and their plain text:
 * without Markdown's marks, line breaks as spaces. The repository has no copy of it.
 */
import { existsSync, readFileSync } from 'node:fs';
import { REPOSITORY } from './document.js';

export const SHARED = `${REPOSITORY}../shared`;
const CONTRACT = `${SHARED}/contract.md`;

/** Undefined where the page is not there. Headings, heads of tables and pointers to other pages say no behaviour. */
export function readContract(): string[] | undefined {
  if (!existsSync(CONTRACT)) return undefined;
  const blocks: string[] = [];
  let previous = '';
  for (const line of readFileSync(CONTRACT, 'utf8').split('\n')) {
    const isStart = line === '' || /^([#*|]|\d+\.)/.test(line);
    if (isStart || previous === '' || previous.startsWith('#')) blocks.push(line);
    else blocks.push(`${blocks.pop()} ${line.trim()}`);
    previous = line;
  }
  return blocks
    .filter((block, index) => block !== '' && !block.startsWith('#') && !/^\|[-|]+$/.test(blocks[index + 1] ?? ''))
    .filter((block) => !/^\|[-|]+$/.test(block))
    .flatMap(sentences);
}

function sentences(block: string): string[] {
  if (block.startsWith('|')) return [plainText(block.split('|').slice(1, -1).join(' | '))];
  return block
    .replace(/^[*] /, '')
    .split(/(?<=\.)\s+(?=[A-Z(`*])/)
    .map(plainText);
}

export function plainText(markdown: string): string {
  return markdown.replace(/[`*]/g, '').replace(/\s+/g, ' ').trim();
}
