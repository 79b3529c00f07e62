/** Records without a key, which a compacted topic does not take: refused as Apache Kafka refuses them (KIP-467). */
import { MillraceError } from '../../protocol/errors.ts';
import type { ProduceResponsePartitionInit } from '../../protocol/kafka/messages.ts';
import { batchRecordCount, openRecords } from '../../protocol/record-batch.ts';
import type { Partition } from '../engine.ts';

/** Named in an answer; the rest is only counted. */
const NAMED_MAX = 1000;
/** In the text, as in Apache Kafka. */
const SHOWN_MAX = 3;

/** A batch that is refused as a whole because of some of its records. */
export class KeylessRecordsError extends MillraceError {
  /** What is answered for each of them. */
  readonly recordErrors: NonNullable<ProduceResponsePartitionInit['recordErrors']>;
  readonly logStartOffset: number;

  constructor(partition: Partition, indexes: readonly number[]) {
    const text = `Compacted topic cannot accept message without key in topic partition ${partition.topic}-${partition.index}`;
    const shown = indexes
      .slice(0, SHOWN_MAX)
      .map((index) => `RecordError(batchIndex=${index}, message='${text}')`)
      .join(', ');
    super(
      'INVALID_RECORD',
      `One or more records have been rejected due to ${indexes.length} record errors in total, and only showing the first three errors at most: [${shown}]`,
    );
    this.recordErrors = indexes.slice(0, NAMED_MAX).map((batchIndex) => ({ batchIndex, batchIndexErrorMessage: text }));
    this.logStartOffset = partition.startOffset;
  }
}

/** Checks a batch that has passed `checkProducedBatch`. Throws what names all its records without a key. */
export function refuseKeylessRecords(partition: Partition, batch: Buffer, decompressedBytesMax: number): void {
  const record = openRecords(batch, 0, decompressedBytesMax);
  const indexes: number[] = [];
  const count = batchRecordCount(batch, 0);
  for (let index = 0; index < count; index++) {
    record.next();
    if (record.keySize < 0) indexes.push(index);
  }
  if (indexes.length > 0) throw new KeylessRecordsError(partition, indexes);
}
