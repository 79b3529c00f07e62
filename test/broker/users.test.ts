import test from 'ava';
import { ANONYMOUS, principalOf } from '../../broker/access.ts';
import { passwordHash, passwordMatches } from '../../broker/password-hash.ts';
import { SealedSecrets } from '../../broker/sealed-secrets.ts';
import { openMemoryBroker } from '../support/memory-broker.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimRandom } from '../support/sim-random.ts';

const HERE = { isLoopback: true };

test('the first start makes guest and the vhost /, and a later one does not bring guest back', async (t) => {
  const { broker } = await openMemoryBroker();
  const { users, vhosts } = broker.directory;
  t.deepEqual(
    users.list().map(({ name, tags }) => [name, ...tags]),
    [['guest', 'administrator']],
  );
  t.deepEqual(
    vhosts.list().map(({ name }) => name),
    ['/'],
  );
  t.true('user' in users.authenticate('guest', 'guest', HERE));
  t.deepEqual(users.authenticate('guest', 'guest', { isLoopback: false }), { refused: 'loopback' });
  t.true(await users.delete('guest'));
  t.deepEqual(users.authenticate('guest', 'guest', HERE), { refused: 'credentials' });
  t.deepEqual(users.permissions(), []);
});

test('hashes that RabbitMQ made open, also after a change of the tags', async (t) => {
  const { broker } = await openMemoryBroker();
  const { users } = broker.directory;
  // Made by RabbitMQ 4.0.5 for guest.
  const hash = 'Vrtaue7vbjxwIq9XQQPzV39wLv1n8OYnSHJ2RZHUCwoRWEzw';
  await users.put('imported', { passwordHash: hash, tags: ['monitoring'] });
  t.true('user' in users.authenticate('imported', 'guest', HERE));
  t.false('user' in users.authenticate('imported', 'guess', HERE));
  await users.put('imported', { tags: [] });
  t.true('user' in users.authenticate('imported', 'guest', HERE));
  t.deepEqual(users.credentials('imported'), {
    passwordHash: hash,
    hashingAlgorithm: 'rabbit_password_hashing_sha256',
  });
  for (const algorithm of ['rabbit_password_hashing_sha512', 'rabbit_password_hashing_md5'] as const) {
    const random = new SimRandom(7);
    t.true(passwordMatches('pässword', passwordHash('pässword', random, algorithm), algorithm));
    t.false(passwordMatches('password', passwordHash('pässword', random, algorithm), algorithm));
  }
});

test('nobody comes in without a password', async (t) => {
  const { broker } = await openMemoryBroker();
  const { users } = broker.directory;
  await users.put('empty', {});
  await users.put('cleared', { password: 'x' });
  await users.put('cleared', { passwordHash: '' });
  for (const name of ['empty', 'cleared', 'nobody', '']) {
    t.deepEqual(users.authenticate(name, '', HERE), { refused: 'credentials' });
    t.deepEqual(users.authenticate(name, 'x', HERE), { refused: 'credentials' });
  }
  await t.throwsAsync(users.put('blank', { password: '' }), { code: 'INVALID_REQUEST' });
  await t.throwsAsync(users.put('', { password: 'x' }), { code: 'INVALID_REQUEST' });
  // Whoever does not say a name has all rights at the Kafka door.
  await t.throwsAsync(users.put('ANONYMOUS', { password: 'x' }), { code: 'INVALID_REQUEST' });
  await t.throwsAsync(users.put('a', { passwordHash: 'no base64' }), { code: 'INVALID_REQUEST' });
  await t.throwsAsync(users.put('a', { password: 'x', hashingAlgorithm: 'plain' }), { code: 'INVALID_REQUEST' });
});

test('what users may do follows their permissions at once, in every vhost for itself', async (t) => {
  const { broker } = await openMemoryBroker();
  const { access, directory } = broker;
  const { users, vhosts } = directory;
  await users.put('u', { password: 'p' });
  const may = (operation: 'ALTER' | 'WRITE' | 'READ' | 'DESCRIBE', name: string, vhost?: string) =>
    access.authorize(principalOf('u'), operation, 'QUEUE', name, vhost);
  t.false(may('READ', 'a'));
  await users.permit({ user: 'u', vhost: '/', configure: '', write: '^w', read: 'r$' });
  t.deepEqual(
    [may('READ', 'wr'), may('WRITE', 'wr'), may('ALTER', 'wr'), may('DESCRIBE', 'wr'), may('DESCRIBE', 'x')],
    [true, true, false, true, false],
  );
  t.false(may('READ', 'wr', 'other'));
  t.true(access.authorize(principalOf('u'), 'READ', 'TOPIC', 'wr'));
  t.false(access.authorize(principalOf('u'), 'ALTER', 'CLUSTER', 'kafka-cluster'));
  t.true(access.authorize(principalOf('guest'), 'ALTER', 'CLUSTER', 'kafka-cluster'));
  t.false(access.authorize(principalOf('nobody'), 'READ', 'TOPIC', 'wr'));
  t.true(access.authorize(ANONYMOUS, 'DELETE', 'TOPIC', 'anything'));
  await vhosts.put('other');
  await users.permit({ user: 'u', vhost: 'other', configure: '.*', write: '', read: '' });
  t.true(may('ALTER', 'x', 'other'));
  await vhosts.delete('other');
  await vhosts.put('other');
  t.false(may('ALTER', 'x', 'other'));
  await users.forbid('u', '/');
  t.false(may('READ', 'wr'));
  await t.throwsAsync(users.permit({ user: 'x', vhost: '/', configure: '', write: '', read: '' }), {
    code: 'USER_NOT_FOUND',
  });
  await t.throwsAsync(users.permit({ user: 'u', vhost: 'x', configure: '', write: '', read: '' }), {
    code: 'VHOST_NOT_FOUND',
  });
  await t.throwsAsync(users.permit({ user: 'u', vhost: '/', configure: '(', write: '', read: '' }), {
    code: 'INVALID_REQUEST',
  });
});

test('access keys open with the key file, and only with that', async (t) => {
  const { broker, engine } = await openMemoryBroker();
  const { users } = broker.directory;
  const made = await users.createAccessKey('guest');
  t.regex(made.id, /^AKIA[A-Z2-7]{16}$/);
  t.is(made.secret.length, 40);
  t.is(users.accessKey(made.id)?.secret, made.secret);
  t.deepEqual(users.accessKeys('guest'), [{ id: made.id, user: 'guest', createdMs: made.createdMs }]);
  await t.throwsAsync(users.createAccessKey('guest', { id: made.id, secret: 'x' }), { code: 'INVALID_REQUEST' });
  await t.throwsAsync(users.createAccessKey('nobody'), { code: 'USER_NOT_FOUND' });
  await users.delete('guest');
  t.is(users.accessKey(made.id), undefined);
  t.truthy(engine);

  const clock = new SimClock();
  const disk = new SimDisk({ clock });
  await disk.makeDirectory('/data');
  const files = { disk, dataDir: '/data' };
  const sealing = new SealedSecrets(files, new SimRandom(2));
  await sealing.ready();
  const sealed = sealing.seal('sécret');
  t.false(Buffer.from(sealed).includes('cret'));
  const later = new SealedSecrets(files, new SimRandom(3));
  t.is(later.open(sealed), undefined);
  await later.load();
  t.is(later.open(sealed), 'sécret');
  t.is(later.open(sealed.map((byte, index) => (index === 14 ? byte ^ 1 : byte))), undefined);
  t.is(later.open(new Uint8Array(3)), undefined);
});

test('there are as many facts as there may be', async (t) => {
  const { broker } = await openMemoryBroker({ 'directory.facts.max': 4 });
  const { users } = broker.directory;
  await users.put('a', {});
  await t.throwsAsync(users.put('b', {}), { code: 'POLICY_VIOLATION' });
  t.is(users.get('b'), undefined);
  await users.put('a', { tags: ['monitoring'] });
  await users.delete('a');
  await users.put('b', {});
});

test('limits and facts of vhosts', async (t) => {
  const { broker } = await openMemoryBroker();
  const { vhosts, users } = broker.directory;
  t.true(await vhosts.put('v', { description: 'd', tags: ['a'], defaultQueueType: 'quorum' }));
  t.false(await vhosts.put('v', { description: 'e' }));
  t.like(vhosts.get('v'), { description: 'e', tags: ['a'], defaultQueueType: 'quorum' });
  await vhosts.setLimit('v', 'max-queues', 3);
  await vhosts.put('v', { tags: [] });
  t.is(vhosts.limit('v', 'max-queues'), 3);
  await vhosts.setLimit('v', 'max-queues', -1);
  t.is(vhosts.limit('v', 'max-queues'), undefined);
  await t.throwsAsync(vhosts.setLimit('v', 'max-fun', 1), { code: 'INVALID_REQUEST' });
  await t.throwsAsync(vhosts.setLimit('w', 'max-queues', 1), { code: 'VHOST_NOT_FOUND' });
  await t.throwsAsync(vhosts.put('w', { defaultQueueType: 'tree' }), { code: 'INVALID_REQUEST' });
  await t.throwsAsync(vhosts.delete('/'), { code: 'INVALID_REQUEST' });
  await users.setLimit('guest', 'max-channels', 2);
  t.is(users.limit('guest', 'max-channels'), 2);
  await users.put('guest', { tags: [] });
  t.is(users.limit('guest', 'max-channels'), 2);
});
