/**
 * Places in a log as people write them: `earliest`, `latest`, an offset, a point in time, a time ago, so many records
 * before the end. `resolvePlaces` turns one into an offset of each partition.
 */
import type { KafkaCluster } from '../kafka/cluster.ts';
import { EARLIEST, LATEST, type TopicPartition, listOffsets } from '../kafka/records.ts';
import { UsageError } from './command.ts';

export type Place =
  | { readonly kind: 'earliest' }
  | { readonly kind: 'latest' }
  | { readonly kind: 'offset'; readonly offset: number }
  /** So many records before the end. */
  | { readonly kind: 'before-end'; readonly count: number }
  /** ms since 1970 */
  | { readonly kind: 'time'; readonly timestamp: number };

export const PLACE_HELP = `earliest, latest, an offset, -N (N before the end), a time
(2026-01-31, 2026-01-31T10:00:00Z, @MS since 1970), or a time ago (90s, 15m, 2h, 1d, PT1H)`;

/** `nowMs` is the wall clock, for times ago. `UsageError` if `text` is none of these. */
export function parsePlace(flag: string, text: string, nowMs: number): Place {
  if (text === 'earliest' || text === 'latest') return { kind: text };
  if (/^\d+$/.test(text)) {
    const offset = Number(text);
    if (!Number.isSafeInteger(offset)) throw new UsageError(`${flag} ${text}: offsets are below 2^53`);
    return { kind: 'offset', offset };
  }
  if (/^-\d+$/.test(text)) return { kind: 'before-end', count: -Number(text) };
  if (/^@\d+$/.test(text)) return { kind: 'time', timestamp: Number(text.slice(1)) };
  const agoMs = parseDuration(text.replace(/^-/, ''));
  if (agoMs !== undefined) return { kind: 'time', timestamp: Math.max(0, nowMs - agoMs) };
  const timestamp = parseTime(text);
  if (timestamp !== undefined) return { kind: 'time', timestamp };
  throw new UsageError(`${flag} '${text}' is not a place in a log: ${PLACE_HELP}`);
}

/** ISO 8601; without a zone it is UTC. Undefined if it is no time. */
export function parseTime(text: string): number | undefined {
  const match = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(Z|[+-]\d\d:?\d\d)?)?$/.exec(text);
  if (!match) return undefined;
  const [, day, time = '00:00', zone = 'Z'] = match;
  const ms = Date.parse(`${day}T${time}${zone}`);
  return Number.isNaN(ms) ? undefined : ms;
}

const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

/** `1h30m`, `500ms`, or ISO 8601 (`P1DT2H`), in ms. Undefined if it is no duration. */
export function parseDuration(text: string): number | undefined {
  const iso = /^P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$/.exec(text);
  if (iso && text.length > 2) {
    const [weeks, days, hours, minutes, seconds] = iso.slice(1).map((part) => Number(part ?? 0));
    return weeks * UNIT_MS.w + days * UNIT_MS.d + hours * UNIT_MS.h + minutes * UNIT_MS.m + seconds * UNIT_MS.s;
  }
  if (!/^(\d+(?:\.\d+)?(ms|[smhdw]))+$/.test(text)) return undefined;
  let sum = 0;
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|[smhdw])/g)) sum += Number(number) * UNIT_MS[unit];
  return Math.round(sum);
}

export interface PartitionRange extends TopicPartition {
  readonly earliest: number;
  readonly latest: number;
}

/** Where each partition starts and ends now. */
export async function partitionRanges(
  cluster: KafkaCluster,
  targets: readonly TopicPartition[],
  options: { readonly readUncommitted?: boolean } = {},
): Promise<PartitionRange[]> {
  const [earliest, latest] = await Promise.all(
    [EARLIEST, LATEST].map((timestamp) =>
      listOffsets(
        cluster,
        targets.map(({ topic, partition }) => ({ topic, partition, timestamp })),
        options,
      ),
    ),
  );
  const key = ({ topic, partition }: TopicPartition) => `${topic}-${partition}`;
  const starts = new Map(earliest.map((found) => [key(found), found.offset]));
  const ends = new Map(latest.map((found) => [key(found), found.offset]));
  return targets.map((target) => ({
    topic: target.topic,
    partition: target.partition,
    earliest: starts.get(key(target)) ?? 0,
    latest: ends.get(key(target)) ?? 0,
  }));
}

/**
 * The offset of `place` in each partition, by `topic-partition`. A time after the last record is the end; an explicit
 * offset is answered as it is, also outside of the log.
 */
export async function resolvePlaces(
  cluster: KafkaCluster,
  ranges: readonly PartitionRange[],
  place: Place,
): Promise<Map<string, number>> {
  const key = ({ topic, partition }: TopicPartition) => `${topic}-${partition}`;
  switch (place.kind) {
    case 'earliest':
      return new Map(ranges.map((range) => [key(range), range.earliest]));
    case 'latest':
      return new Map(ranges.map((range) => [key(range), range.latest]));
    case 'offset':
      return new Map(ranges.map((range) => [key(range), place.offset]));
    case 'before-end':
      return new Map(ranges.map((range) => [key(range), Math.max(range.earliest, range.latest - place.count)]));
    case 'time': {
      const targets = ranges.map(({ topic, partition }) => ({ topic, partition, timestamp: place.timestamp }));
      const found = new Map((await listOffsets(cluster, targets)).map((answer) => [key(answer), answer.offset]));
      const offsetOf = (range: PartitionRange) => {
        const offset = found.get(key(range)) ?? -1;
        return offset < 0 ? range.latest : offset;
      };
      return new Map(ranges.map((range) => [key(range), offsetOf(range)]));
    }
  }
}
