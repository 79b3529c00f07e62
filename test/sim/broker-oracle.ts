/**
 * What the broker has promised, and what it may therefore never do again: the checker of the simulation. Clients tell it
 * what they sent, what was acknowledged and what they saw; everything that contradicts an earlier promise is a failure.
 *
 * Every record says who sent it (an *era*: one producer's unbroken sequence to one partition) and its number in that, so
 * that a record read anywhere proves its topic, partition, order and uniqueness.
 */
import { batchMaxTimestamp, checkStoredBatch, eachBatch, readRecords } from '../../protocol/record-batch.ts';

/** One producer's unbroken sequence of records to one partition. */
export interface Era {
  readonly id: number;
  readonly topic: TopicModel;
  readonly partition: number;
  readonly isIdempotent: boolean;
  /** Values by number. */
  readonly values: string[];
  /** Numbers that the broker said it did not take. */
  readonly refused: Set<number>;
}

export class PartitionModel {
  /** What is at an offset, once acknowledged or seen: era and number. */
  readonly known = new Map<number, string>();
  /** Nothing at or above this was acknowledged or seen. */
  knownEnd = 0;
  /** The start may have moved up to here (asked for), and has at least to there (acknowledged). */
  startMax = 0;
  startMin = 0;
}

export type TopicStatus = 'creating' | 'live' | 'deleting' | 'gone';

export interface TopicModel {
  readonly name: string;
  readonly id: string;
  status: TopicStatus;
  /** Partitions that certainly exist, and that may. */
  partitionsMin: number;
  partitionsMax: number;
  /** Retention may remove any record. */
  isRetained: boolean;
  readonly partitions: PartitionModel[];
  /** Values a config may have, by name. */
  readonly configs: Map<string, Set<string>>;
}

export interface ReadBatchOptions {
  topic: TopicModel;
  partition: number;
  /** Where the reader stands: the first record must be at it. */
  from: number;
  highWatermark: number;
  bytes: Buffer;
}

export class LogOracle {
  readonly topics = new Map<string, TopicModel>();
  readonly #eras: Era[] = [];
  readonly #fail: (text: string) => void;
  acknowledgedRecords = 0;
  seenRecords = 0;

  constructor(fail: (text: string) => void) {
    this.#fail = fail;
  }

  /** A topic that a client knows to exist, or may exist. */
  topic(id: string, init: { name: string; partitionCount: number; isRetained: boolean }): TopicModel {
    const known = this.topics.get(id);
    if (known !== undefined) return known;
    const topic: TopicModel = {
      name: init.name,
      id,
      status: 'live',
      partitionsMin: init.partitionCount,
      partitionsMax: init.partitionCount,
      isRetained: init.isRetained,
      partitions: [],
      configs: new Map(),
    };
    this.topics.set(id, topic);
    return topic;
  }

  partition(topic: TopicModel, index: number): PartitionModel {
    while (topic.partitions.length <= index) topic.partitions.push(new PartitionModel());
    return topic.partitions[index];
  }

  era(topic: TopicModel, partition: number, isIdempotent: boolean): Era {
    const era: Era = { id: this.#eras.length, topic, partition, isIdempotent, values: [], refused: new Set() };
    this.#eras.push(era);
    return era;
  }

  /** A new record of the era: its value. */
  record(era: Era, padding: string): string {
    const value = `${era.id}|${era.values.length}|${padding}`;
    era.values.push(value);
    return value;
  }

  /** The broker said that the records `from` … `to` − 1 of the era are at `baseOffset`. */
  acknowledged(era: Era, from: number, to: number, baseOffset: number): void {
    for (let number = from; number < to; number++) this.#know(era, number, baseOffset + number - from, 'acknowledged');
    this.acknowledgedRecords += to - from;
  }

  refused(era: Era, from: number, to: number): void {
    for (let number = from; number < to; number++) era.refused.add(number);
  }

  #know(era: Era, number: number, offset: number, how: string): void {
    const partition = this.partition(era.topic, era.partition);
    const key = `${era.id}|${number}`;
    const known = partition.known.get(offset);
    if (known !== undefined && known !== key) {
      this.#fail(`${nameOf(era.topic, era.partition)}: offset ${offset} was record ${known}, now ${how} as ${key}`);
    }
    if (known === undefined && how === 'acknowledged' && offset < partition.startMin) return;
    partition.known.set(offset, key);
    if (offset >= partition.knownEnd) partition.knownEnd = offset + 1;
  }

  /** A reader was told where the log ends. */
  sawEnd(topic: TopicModel, index: number, end: number): void {
    const partition = this.partition(topic, index);
    if (end > partition.knownEnd) partition.knownEnd = end;
  }

  /** `end` is the end of the log as told to who asked after `knownEnd` had been promised. */
  checkEnd(topic: TopicModel, index: number, end: number, knownEnd: number): void {
    if (end < knownEnd) this.#fail(`${nameOf(topic, index)} ends at ${end}, but ${knownEnd} was promised`);
    this.sawEnd(topic, index, end);
  }

  /** A reader was told where the log starts. */
  checkStart(topic: TopicModel, index: number, start: number, startMin: number): void {
    const partition = this.partition(topic, index);
    if (start < startMin)
      this.#fail(`${nameOf(topic, index)} starts at ${start}, below ${startMin}, which was deleted`);
    if (!topic.isRetained && start > partition.startMax) {
      this.#fail(`${nameOf(topic, index)} starts at ${start}; nobody asked to delete beyond ${partition.startMax}`);
    }
  }

  /**
   * Checks what a fetch brought and answers where the reader stands then. `order`, if given, collects the order over a
   * whole log: last number by era.
   */
  read({ topic, partition: index, from, highWatermark, bytes }: ReadBatchOptions, order?: Map<number, number>): number {
    const name = nameOf(topic, index);
    let position = from;
    eachBatch(bytes, (at, sizeBytes) => {
      try {
        checkStoredBatch(bytes, at, sizeBytes);
        batchMaxTimestamp(bytes, at);
      } catch (error) {
        this.#fail(`${name}: a bad batch was served at offset ${position}: ${String(error)}`);
        return;
      }
      for (const { offset, value } of readRecords(bytes, at)) {
        if (offset < position) continue;
        if (offset > position) this.#fail(`${name}: offset ${position} is missing, ${offset} follows`);
        position = offset + 1;
        if (offset >= highWatermark) this.#fail(`${name}: offset ${offset} served, high watermark ${highWatermark}`);
        this.#see(topic, index, offset, value === null ? '' : value.toString('latin1'), order);
      }
    });
    return position;
  }

  #see(topic: TopicModel, index: number, offset: number, value: string, order?: Map<number, number>): void {
    this.seenRecords++;
    const name = nameOf(topic, index);
    const [eraText, numberText] = value.split('|', 2);
    const era = this.#eras[Number(eraText)];
    const number = Number(numberText);
    if (era === undefined || era.values[number] !== value) {
      this.#fail(`${name}: offset ${offset} holds '${value.slice(0, 60)}', which nobody sent`);
      return;
    }
    if (era.topic !== topic || era.partition !== index) {
      const where = nameOf(era.topic, era.partition);
      this.#fail(
        `${name} (${topic.id}): offset ${offset} holds record ${number} of era ${era.id}, sent to ${where} (${era.topic.id})`,
      );
      return;
    }
    if (era.refused.has(number))
      this.#fail(`${name}: offset ${offset} holds record ${eraText}|${numberText}, which was refused`);
    this.#know(era, number, offset, 'seen');
    if (order === undefined) return;
    const last = order.get(era.id);
    order.set(era.id, number);
    if (last === undefined) return;
    if (number <= last)
      this.#fail(`${name}: offset ${offset}: record ${era.id}|${number} comes after ${era.id}|${last}`);
    if (era.isIdempotent && number > last + 1) {
      this.#fail(`${name}: offset ${offset}: record ${era.id}|${number} follows ${era.id}|${last}, one is missing`);
    }
  }

  /** Log flush `written` and a power cut: nothing that was promised holds any more. */
  forget(): void {
    for (const topic of this.topics.values()) {
      topic.isRetained = true;
      for (const partition of topic.partitions) {
        partition.known.clear();
        partition.knownEnd = 0;
        partition.startMin = 0;
      }
    }
  }
}

export function nameOf(topic: TopicModel, partition: number): string {
  return `${topic.name}-${partition}`;
}
