/** Work that a request does over an AMQP connection of its user, and what a refusal of the door is as an answer. */
import { DirectClient, DirectRefusal } from './direct-client.ts';
import type { ManagementParts } from './parts.ts';
import { badRequest, type Call, notAuthorised, notFound } from './resource.ts';

/**
 * RabbitMQ has three ways: `short` for what declares and deletes, `coded` with the reply code for what takes messages, and
 * `published`, which is always 400.
 */
export type RefusalStyle = 'short' | 'coded' | 'published';

export async function asUser<T>(
  parts: ManagementParts,
  { call, vhost, style }: { call: Call; vhost: string; style: RefusalStyle },
  work: (client: DirectClient) => Promise<T>,
): Promise<T> {
  const { user, password, request } = call;
  let client: DirectClient;
  try {
    client = await DirectClient.open({
      accept: (transport) => parts.amqp.accept(transport, true),
      clock: parts.clock,
      user: user.name,
      password,
      vhost,
      remoteHost: request.remoteHost,
    });
  } catch (error) {
    if (error instanceof DirectRefusal) throw notAuthorised('Access refused.');
    throw error;
  }
  try {
    return await work(client);
  } catch (error) {
    if (error instanceof DirectRefusal) throw refusal(error, style);
    throw error;
  } finally {
    await client.close();
  }
}

function refusal(error: DirectRefusal, style: RefusalStyle): Error {
  const { replyCode, explanation, message } = error;
  const text = message.slice(message.indexOf(' ') + 1);
  if (style === 'published') return badRequest(message);
  if (style === 'coded') {
    if (replyCode === 404) return notFound(text);
    return replyCode === 403 ? notAuthorised(text) : badRequest(message);
  }
  if (replyCode === 404) return notFound(explanation);
  return replyCode === 403 || replyCode === 530 ? notAuthorised('Access refused.') : badRequest(explanation);
}
