/** How results are written: tables for people, one JSON object a line for programs. */

export type Cell = string | number | null | undefined;

/** Columns padded to their widest cell; numbers to the right. An absent value is '-'. */
export function table(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const isNumber = head.map(
    (_, column) => rows.length > 0 && rows.every((row) => typeof (row[column] ?? 0) === 'number'),
  );
  const texts = [head, ...rows].map((row) =>
    row.map((cell) => (cell === null || cell === undefined || cell === '' ? '-' : String(cell))),
  );
  const widths = head.map((_, column) => Math.max(...texts.map((row) => row[column].length)));
  const line = (row: readonly string[]) =>
    row
      .map((text, column) => (isNumber[column] ? text.padStart(widths[column]) : text.padEnd(widths[column])))
      .join('  ')
      .trimEnd();
  return `${texts.map(line).join('\n')}\n`;
}

/** One object as a line of NDJSON. */
export function jsonLine(value: object): string {
  return `${JSON.stringify(value)}\n`;
}

/** ISO 8601 in UTC, or '-' for a record without a time. */
export function timeText(ms: number): string {
  return ms >= 0 && ms <= 8.64e15 ? new Date(ms).toISOString() : '-';
}

/** 1536 → '1.5 KiB'. */
export function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 'B';
  for (const next of ['KiB', 'MiB', 'GiB', 'TiB']) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return `${value < 10 && unit !== 'B' ? value.toFixed(1) : Math.round(value)} ${unit}`;
}

/** 'a' or 'a and 3 others' style counts: `plural(2, 'topic')` is '2 topics'. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
