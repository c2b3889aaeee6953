/** The bench's output: tables in columns, and what was wanted of a figure. */
export function printTable(title: string, head: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = head.map((cell, column) => Math.max(cell.length, ...rows.map((row) => (row[column] ?? '').length)));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ');
  console.log(`\n${title}\n  ${line(head)}`);
  for (const row of rows) console.log(`  ${line(row)}`);
}

/** One line a wanted figure. */
export function printWanted(what: string, figure: number, limit: number, digits = 2): void {
  const verdict = figure <= limit ? 'met' : 'NOT MET';
  console.log(`  wanted: ${what} <= ${limit}: ${figure.toFixed(digits)}, ${verdict}`);
}

/** The same for a figure of which more is better. */
export function printWantedAtLeast(what: string, figure: number, limit: number, digits = 2): void {
  const verdict = figure >= limit ? 'met' : 'NOT MET';
  console.log(`  wanted: ${what} >= ${limit}: ${figure.toFixed(digits)}, ${verdict}`);
}
