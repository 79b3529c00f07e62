import test from 'ava';
import type { JsonObject } from '../../broker/directory-state.ts';
import type { Policy } from '../../broker/policies.ts';
import { openMemoryBroker } from '../support/memory-broker.ts';

const policy = (name: string, definition: JsonObject, more: Partial<Policy> = {}): Policy => ({
  vhost: '/',
  name,
  pattern: '^q',
  applyTo: 'all',
  priority: 0,
  definition,
  ...more,
});

test('of the policies that match the one of highest priority applies, and one of the operator beside it', async (t) => {
  const { policies } = (await openMemoryBroker()).broker.directory;
  const inForce = (type: 'classic' | 'quorum' | 'stream' = 'classic', name = 'q') =>
    policies.effective({ kind: 'queue', vhost: '/', name, type });
  t.deepEqual(inForce(), { policy: undefined, operatorPolicy: undefined, definition: {} });
  await policies.put('user', policy('a', { 'max-length': 1 }, { priority: 1 }));
  await policies.put('user', policy('b', { 'max-length': 2 }, { priority: 1 }));
  await policies.put('user', policy('c', { 'max-length': 3 }));
  t.deepEqual(inForce().definition, { 'max-length': 2 });
  t.deepEqual(inForce('classic', 'other').definition, {});
  // A stream has no length in messages: the policy as a whole is not for it.
  t.deepEqual(inForce('stream').definition, {});
  await policies.put('operator', policy('o', { 'max-length': 10, 'message-ttl': 5, overflow: 'reject-publish' }));
  t.deepEqual(inForce().definition, { 'max-length': 2, 'message-ttl': 5, overflow: 'reject-publish' });
  await policies.put('user', policy('d', { 'delivery-limit': 5, overflow: 'drop-head' }, { priority: 9 }));
  t.is(inForce('classic').policy?.name, 'b');
  t.deepEqual(inForce('quorum').definition, {
    'delivery-limit': 5,
    'max-length': 10,
    'message-ttl': 5,
    overflow: 'reject-publish',
  });
  await policies.put('operator', policy('o', { 'delivery-limit': -1 }));
  t.deepEqual(inForce('quorum').definition, { 'delivery-limit': 5, overflow: 'drop-head' });
  t.true(await policies.delete('user', '/', 'd'));
  t.false(await policies.delete('user', '/', 'd'));
  t.is(inForce('quorum').policy?.name, 'b');
});

test('a policy applies to what it says it applies to', async (t) => {
  const { policies, vhosts } = (await openMemoryBroker()).broker.directory;
  const names = (applyTo: Policy['applyTo']) =>
    policies
      .put('user', policy('p', { 'max-length-bytes': 1 }, { applyTo }))
      .then(() =>
        [
          ...(['classic', 'quorum', 'stream'] as const).filter(
            (type) => policies.effective({ kind: 'queue', vhost: '/', name: 'q', type }).policy,
          ),
          ...(policies.effective({ kind: 'exchange', vhost: '/', name: 'q' }).policy ? ['exchange'] : []),
        ].join(' '),
      );
  t.is(await names('all'), 'classic quorum stream exchange');
  t.is(await names('queues'), 'classic quorum stream');
  t.is(await names('classic_queues'), 'classic');
  t.is(await names('quorum_queues'), 'quorum');
  t.is(await names('streams'), 'stream');
  t.is(await names('exchanges'), 'exchange');
  await vhosts.put('v');
  t.is(policies.effective({ kind: 'exchange', vhost: 'v', name: 'q' }).policy, undefined);
});

test('what a policy cannot say is refused in the words of RabbitMQ', async (t) => {
  const { policies } = (await openMemoryBroker()).broker.directory;
  const refused = async (definition: JsonObject, kind: 'user' | 'operator' = 'user', more: Partial<Policy> = {}) =>
    (await t.throwsAsync(policies.put(kind, policy('p', definition, more))))?.message;
  t.is(await refused({}), 'no policy provided');
  t.is(await refused({ foo: 1 }), '[{<<"foo">>,1}] are not recognised policy settings');
  t.is(await refused({ 'message-ttl': 'a' }), '<<"a">> is not a valid message TTL');
  t.is(await refused({ 'message-ttl': 1.5 }), '1.5 is not a valid message TTL');
  t.is(await refused({ expires: 0 }), '0 is not a valid queue expiry');
  t.is(await refused({ 'max-length': -5 }), '-5 is not a valid maximum length');
  t.is(await refused({ 'max-length-bytes': '1' }), '<<"1">> is not a valid maximum length in bytes');
  t.is(await refused({ overflow: 'x' }), '<<"x">> is not a valid overflow value');
  t.is(await refused({ 'dead-letter-exchange': 1 }), '1 is not a valid dead letter exchange name');
  t.is(await refused({ 'dead-letter-routing-key': 1 }), '1 is not a valid dead letter routing key');
  t.is(await refused({ 'delivery-limit': '1' }), '<<"1">> is not a valid delivery limit');
  t.is(await refused({ 'alternate-exchange': 1 }), '1 is not a valid alternate exchange name');
  t.is(await refused({ 'max-age': '1x' }), '<<"1x">> is not a valid max age');
  t.is(await refused({ 'queue-mode': 'x' }), '<<"x">> is not a valid queue-mode value');
  t.is(
    await refused({ 'dead-letter-exchange': 'x' }, 'operator'),
    '[{<<"dead-letter-exchange">>,<<"x">>}] are not recognised policy settings',
  );
  t.regex((await refused({ expires: 1 }, 'user', { pattern: '(' })) ?? '', /^pattern should be regular expression but/);
  t.regex((await refused({ expires: 1 }, 'user', { vhost: 'v' })) ?? '', /no vhost 'v'/);
  // What came as JSON may be anything.
  const foreign = { applyTo: 'foo' } as unknown as Partial<Policy>;
  t.regex((await refused({ expires: 1 }, 'user', foreign)) ?? '', /^apply-to 'foo' unrecognised; should be one of/);
});

test('parameters are kept as they are, and go with their vhost', async (t) => {
  const { parameters, vhosts } = (await openMemoryBroker()).broker.directory;
  await vhosts.put('v');
  const upstream = { component: 'federation-upstream', vhost: 'v', name: 'u', value: { uri: 'amqp://x', n: [1] } };
  t.true(await parameters.put(upstream));
  t.false(await parameters.put(upstream));
  t.deepEqual(parameters.list({ component: 'federation-upstream' }), [upstream]);
  await t.throwsAsync(parameters.put({ ...upstream, component: 'policy' }), { code: 'INVALID_REQUEST' });
  t.true(await parameters.putGlobal('g', { a: 1 }));
  await vhosts.delete('v');
  t.deepEqual(parameters.list(), []);
  t.deepEqual(parameters.listGlobal(), [{ name: 'g', value: { a: 1 } }]);
  t.true(await parameters.deleteGlobal('g'));
});
