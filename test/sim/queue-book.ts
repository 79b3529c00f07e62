/**
 * What queues have promised, and what they may therefore never do again. The workload writes down what it sent, what it
 * asked for and what was answered; a copy of the book of any moment is enough to check the world that a crash in that
 * moment leaves.
 */

/** No, asked for, answered. */
export type Progress = 'no' | 'asked' | 'answered';

/** One message, known by its value. */
export interface Sent {
  readonly value: string;
  readonly queue: string;
  published: Progress;
  /** Wall clock; not handed out before. */
  notBeforeMs: number;
  readonly dedupId: string | undefined;
  /** Accepted, from whatever queue it was in. */
  accepted: Progress;
  /** Rejected, in the queue it was sent to. */
  rejected: Progress;
  /** Handed out by the queue it was sent to, as far as somebody was told: in this life, and as far as it is durable. */
  deliveries: number;
  durableDeliveries: number;
  /** Somebody was told of a delivery by the queue it was sent to, in whatever life. */
  wasSeen: boolean;
  /** Somebody was told that it is in the dead letters. */
  isDead: boolean;
  /** Dead letters were asked to go back: it may begin anew. */
  mayReturn: boolean;
}

export class QueueBook {
  readonly sent: Map<string, Sent>;

  constructor(from?: QueueBook) {
    this.sent = new Map([...(from?.sent ?? [])].map(([value, sent]) => [value, { ...sent }]));
  }

  /** As of now. */
  copy(): QueueBook {
    return new QueueBook(this);
  }

  /** The broker has crashed: deliveries that were not durable need not be counted any more. */
  crashed(): void {
    for (const sent of this.sent.values()) sent.deliveries = sent.durableDeliveries;
  }

  send(value: string, queue: string, init: { notBeforeMs?: number; dedupId?: string | undefined }): Sent {
    const sent: Sent = {
      value,
      queue,
      published: 'asked',
      notBeforeMs: init.notBeforeMs ?? 0,
      dedupId: init.dedupId,
      accepted: 'no',
      rejected: 'no',
      deliveries: 0,
      durableDeliveries: 0,
      wasSeen: false,
      isDead: false,
      mayReturn: false,
    };
    this.sent.set(value, sent);
    return sent;
  }
}

/** A message that was handed out, and answered. */
export interface Seen {
  readonly value: string;
  readonly queue: string;
  readonly acquiredCount: number;
  readonly isRedelivery: boolean;
  readonly nowMs: number;
}

/** Checks one delivery against what was promised before. */
export function checkDelivery(book: QueueBook, seen: Seen, fail: (text: string) => void): void {
  const { value, queue, acquiredCount, isRedelivery, nowMs } = seen;
  const sent = book.sent.get(value);
  if (sent === undefined) return fail(`${queue}: '${value}' was handed out, which nobody sent`);
  if (sent.accepted === 'answered') fail(`${queue}: '${value}' comes back, its acceptance was answered`);
  if (nowMs < sent.notBeforeMs) fail(`${queue}: '${value}' is handed out ${sent.notBeforeMs - nowMs} ms early`);
  if (sent.dedupId !== undefined) {
    for (const other of book.sent.values()) {
      const isTwin = other !== sent && other.queue === sent.queue && other.dedupId === sent.dedupId;
      if (isTwin && (other.wasSeen || other.isDead)) {
        fail(`${queue}: '${value}' and '${other.value}' were handed out, both with id ${sent.dedupId}`);
      }
    }
  }
  if (queue === sent.queue) {
    if (sent.mayReturn) return;
    if (sent.isDead) fail(`${queue}: '${value}' is handed out, and was in the dead letters`);
    if (acquiredCount <= sent.deliveries) {
      fail(
        `${queue}: '${value}' is handed out for the ${acquiredCount}th time, after ${sent.deliveries} that were answered`,
      );
    }
    if (sent.wasSeen && !isRedelivery) fail(`${queue}: '${value}' comes again and is not told to be redelivered`);
    sent.deliveries = acquiredCount;
    sent.wasSeen = true;
  } else {
    sent.isDead = true;
  }
}

/** How often each value was found when all queues were emptied. */
export type Found = ReadonlyMap<string, readonly string[]>;

/** Checks that nothing is missing and nothing is there twice. */
export function checkFound(book: QueueBook, found: Found, fail: (text: string) => void): void {
  const firsts = new Map<string, number>();
  for (const sent of book.sent.values()) {
    const places = found.get(sent.value) ?? [];
    if (places.length > 1) fail(`'${sent.value}' is in ${places.join(' and ')}`);
    if (places.length > 0 && sent.accepted === 'answered') fail(`'${sent.value}' is in ${places[0]}, and was accepted`);
    if (sent.rejected === 'answered' && !sent.mayReturn && places[0] === sent.queue) {
      fail(`'${sent.value}' is in ${sent.queue}, and was rejected`);
    }
    if (sent.dedupId !== undefined && sent.published === 'answered') {
      const key = `${sent.queue} ${sent.dedupId}`;
      const isTaken = places.length > 0 || sent.accepted !== 'no';
      firsts.set(key, (firsts.get(key) ?? 0) + (isTaken ? 1 : 0));
      continue;
    }
    if (sent.published !== 'answered' || sent.accepted !== 'no') continue;
    if (places.length === 0) fail(`'${sent.value}' is lost, it was sent to ${sent.queue}`);
  }
  for (const [key, count] of firsts) {
    // A twin whose publish was not answered may be the one that is there.
    const [queue, id] = key.split(' ');
    const others = [...book.sent.values()].filter((sent) => sent.queue === queue && sent.dedupId === id);
    const isThere = others.some(({ value, accepted }) => accepted !== 'no' || (found.get(value)?.length ?? 0) > 0);
    if (count > 1) fail(`${count} messages with id ${id} were taken by ${queue}`);
    if (!isThere) fail(`no message with id ${id} is in ${queue}`);
  }
}
