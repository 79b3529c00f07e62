/**
 * What stops publishing for the whole door: a disk below its reserve, or too much memory in use. RabbitMQ's way
 * (`connection.blocked`): a connection is not read any more from its first publish on, until it is over; connections that
 * only consume go on.
 */
import type { Clock } from '../../storage/clock.ts';
import type { Options } from '../../broker/config.ts';
import type { Engine } from '../../broker/engine.ts';

/** Between looks at the memory, and at whether an alarm is over. */
const LOOK_MS = 500;

export interface AlarmParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly options: Options;
  /** Memory that the process holds. */
  readonly memoryBytes: () => number;
}

export class Alarms {
  readonly #parts: AlarmParts;
  #isMemoryLow = false;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #waiting: (() => void)[] = [];

  constructor(parts: AlarmParts) {
    this.#parts = parts;
  }

  /** In RabbitMQ's words; undefined: all is well. */
  get reason(): string | undefined {
    const { engine, clock } = this.#parts;
    const nowMs = clock.monotonic();
    if (nowMs - this.#lookedMs >= LOOK_MS) this.#look(nowMs);
    return engine.isFull || this.#isMemoryLow ? `low on ${this.lowOn.join(' & ')}` : undefined;
  }
  /** As it was at the last look. */
  get lowOn(): readonly ('disk' | 'memory')[] {
    const { engine } = this.#parts;
    return [...(engine.isFull ? (['disk'] as const) : []), ...(this.#isMemoryLow ? (['memory'] as const) : [])];
  }

  #look(nowMs: number): void {
    const { options, memoryBytes } = this.#parts;
    const maxBytes = options['amqp.memory.high.bytes'];
    this.#lookedMs = nowMs;
    this.#isMemoryLow = maxBytes > 0 && memoryBytes() > maxBytes;
  }

  /** Calls back once, when no alarm is left. */
  whenOver(callback: () => void): void {
    this.#waiting.push(callback);
    if (this.#waiting.length === 1) this.#watch();
  }

  #watch(): void {
    this.#parts.clock.after(LOOK_MS, () => {
      if (this.#waiting.length === 0) return;
      if (this.reason !== undefined) return this.#watch();
      for (const callback of this.#waiting.splice(0)) callback();
    });
  }
}
