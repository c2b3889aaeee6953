/**
 * A program that does what it is told: one JSON object a line on standard input, `{id, operation, args}`; the answer on
 * standard output, `{id, result}` or `{id, error}`. vpn-app.ts is the other side. It ends with its standard input.
 */
import { createInterface } from 'node:readline';
import { BusinessError } from '../../../../src/model/errors.js';
import { operations } from './operations.js';

interface Order {
  id: number;
  operation: keyof typeof operations;
  args: unknown[];
}

async function obey({ id, operation, args }: Order): Promise<void> {
  const work = operations[operation] as (...args: unknown[]) => Promise<unknown>;
  try {
    const result = await work(...args);
    console.log(JSON.stringify({ id, result: result ?? null }));
  } catch (error) {
    const { message } = error as Error;
    const code = error instanceof BusinessError ? error.code : (error as { errnoName?: string }).errnoName;
    console.log(JSON.stringify({ id, error: { code, message } }));
  }
}

console.log('ready');
for await (const line of createInterface({ input: process.stdin })) void obey(JSON.parse(line));
process.exit(0);
