/** What a client of its own is told when it does something: answers, returns, and the error that ends channel or connection. */
import amqp, { type Channel } from 'amqplib';

export async function outcome(url: string, work: (channel: Channel) => unknown): Promise<string> {
  const said: string[] = [];
  const connection = await amqp.connect(url, { noDelay: true });
  connection.on('error', (error: Error) => said.push(`connection: ${error.message}`));
  const closed = new Promise<void>((done) => connection.once('close', () => done()));
  try {
    const channel = await connection.createChannel();
    channel.on('error', (error: Error) => said.push(`channel: ${error.message}`));
    channel.on('return', ({ fields }) => said.push(`returned: ${JSON.stringify(fields)}`));
    const result = await work(channel);
    if (result !== undefined && typeof result !== 'boolean') said.push(JSON.stringify(result));
    // Whatever this channel was told came before.
    await channel.checkExchange('amq.direct');
  } catch (error) {
    said.push(`refused: ${error instanceof Error ? error.message : String(error)}`);
  }
  // A connection that is failing closes itself.
  await Promise.race([connection.close().catch(() => {}), closed]);
  return said.join(' || ').replace(/amq\.(gen|ctag)-[A-Za-z0-9_-]{22}/g, 'amq.$1-…');
}
