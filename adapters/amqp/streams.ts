/**
 * Streams: queues that are only read as a log. `x-queue-type: stream` makes a topic of one partition; and every topic is
 * there as one without being declared, also those of Kafka clients: `orders-0`, `orders-1` … are the partitions of the
 * topic `orders`, which bears its own name, too, if it has one partition only. A queue of the same name hides it.
 *
 * Always true: such a view has no state; one object for each name as long as its topic is there.
 */
import { type Table, textField } from '../../protocol/amqp/table.ts';
import type { Queue, QueueRegistry } from '../../broker/queues.ts';
import type { Topic, TopicRegistry } from '../../broker/topics.ts';
import { MessageCounters } from './counters.ts';
import { DEFAULT_VHOST } from './queue-names.ts';
import type { AmqpQueue } from './vhost.ts';

const STREAM_ARGUMENTS: Table = [['x-queue-type', textField('stream')]];

/** Messages that wait; of a single partition, what it has. */
export function readyCount({ queue, partitionIndex }: AmqpQueue): number {
  if (partitionIndex === undefined || queue.isDeleted) return queue.counts().ready;
  const { highWatermark, startOffset } = queue.topic.partitions[partitionIndex];
  return highWatermark - startOffset;
}

export class StreamViews {
  readonly #topics: TopicRegistry;
  readonly #queues: QueueRegistry;
  /** Of a topic: the whole of it, and its partitions by index. */
  readonly #views = new WeakMap<Queue, { whole: AmqpQueue | undefined; partitions: (AmqpQueue | undefined)[] }>();

  constructor({ topics, queues }: { topics: TopicRegistry; queues: QueueRegistry }) {
    this.#topics = topics;
    this.#queues = queues;
  }

  /** The stream of this AMQP name; `topicName` is what a topic of that name is called. */
  find(name: string, topicName: string): AmqpQueue | undefined {
    const topic = this.#topics.get(topicName);
    if (topic !== undefined && !topic.isInternal && topic.partitions.length === 1) return this.#whole(name, topic);
    const dash = name.lastIndexOf('-');
    const digits = name.slice(dash + 1);
    const index = Number(digits);
    if (dash <= 0 || !Number.isSafeInteger(index) || digits !== String(index)) return undefined;
    const base = this.#topics.get(name.slice(0, dash));
    if (base === undefined || base.isInternal || index >= base.partitions.length) return undefined;
    return this.#partition(name, base, index);
  }

  #whole(name: string, topic: Topic): AmqpQueue {
    const views = this.#of(topic);
    views.whole ??= this.#view(name, topic, 0);
    return views.whole;
  }

  #partition(name: string, topic: Topic, index: number): AmqpQueue {
    const views = this.#of(topic);
    const view = views.partitions[index] ?? this.#view(name, topic, index);
    views.partitions[index] = view;
    return view;
  }

  #of(topic: Topic) {
    const queue = this.#queues.stream(topic);
    let views = this.#views.get(queue);
    if (views === undefined) {
      views = { whole: undefined, partitions: [] };
      this.#views.set(queue, views);
    }
    return views;
  }

  #view(name: string, topic: Topic, partitionIndex: number): AmqpQueue {
    return {
      vhost: DEFAULT_VHOST,
      name,
      isDurable: true,
      isExclusive: false,
      isAutoDelete: false,
      arguments: STREAM_ARGUMENTS,
      queue: this.#queues.stream(topic),
      owner: undefined,
      wasConsumed: false,
      counters: new MessageCounters(),
      partitionIndex,
    };
  }
}
