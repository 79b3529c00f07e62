/**
 * What has happened to messages, as plain fields that hot paths add to: of a channel, of a queue, and of everything that
 * ended. Who shows them (`adapters/management`) asks when somebody looks.
 */

/** Of a channel or a queue, since it is there. */
export class MessageCounters {
  publish = 0;
  confirm = 0;
  returnUnroutable = 0;
  dropUnroutable = 0;
  deliver = 0;
  deliverNoAck = 0;
  get = 0;
  getNoAck = 0;
  getEmpty = 0;
  redeliver = 0;
  ack = 0;

  /** All that were handed out. */
  get deliverGet(): number {
    return this.deliver + this.deliverNoAck + this.get + this.getNoAck;
  }

  add(other: MessageCounters): void {
    this.publish += other.publish;
    this.confirm += other.confirm;
    this.returnUnroutable += other.returnUnroutable;
    this.dropUnroutable += other.dropUnroutable;
    this.deliver += other.deliver;
    this.deliverNoAck += other.deliverNoAck;
    this.get += other.get;
    this.getNoAck += other.getNoAck;
    this.getEmpty += other.getEmpty;
    this.redeliver += other.redeliver;
    this.ack += other.ack;
  }
}

/** Of an exchange: published to it, and put into queues from there. */
export class ExchangeCounters {
  publishIn = 0;
  publishOut = 0;
}
