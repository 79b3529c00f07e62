/** `millrace user`, `vhost` and `policy` on a real broker, through its Kafka port. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import amqp from 'amqplib';
import test from 'ava';
import { type TestBroker, startTestBroker } from '../../support/broker.ts';
import { type Cli, cliFor } from './run.ts';

let broker: TestBroker;
let cli: Cli;

test.before(async () => {
  broker = await startTestBroker();
  cli = cliFor(broker.bootstrap);
});
test.after.always(() => broker?.stop());

async function comesIn(user: string, password: string, vhost = '/'): Promise<boolean> {
  const address = new URL(broker.amqp).host;
  const connection = await amqp
    .connect(`amqp://${user}:${password}@${address}/${encodeURIComponent(vhost)}`)
    .catch(() => undefined);
  await connection?.close();
  return connection !== undefined;
}

test.serial('a user is made, let in, shown, changed and deleted', async (t) => {
  t.deepEqual((await cli('user add ann --tags monitoring', 'first\n')).notes, ['made user ann']);
  t.is((await cli('user add ann', 'x')).code, 1);
  t.false(await comesIn('ann', 'first'));
  t.is((await cli(['user', 'permit', 'ann', '--read', '^a', '--write', '']))?.code, 0);
  t.true(await comesIn('ann', 'first'));
  t.regex((await cli('user list')).out, /^ann +monitoring +yes +-$/m);
  t.regex((await cli('user permissions ann')).out, /^ann +\/ +- +- +- +\^a$/m);
  const file = join(broker.dataDir, 'password');
  await writeFile(file, 'second\r\nrest');
  t.is((await cli(`user password ann --password-file ${file}`)).code, 0);
  t.deepEqual([await comesIn('ann', 'first'), await comesIn('ann', 'second')], [false, true]);
  t.is((await cli('user tags ann')).notes[0], 'user ann has no tags');
  t.is((await cli('user limit ann max-connections 0')).code, 0);
  t.false(await comesIn('ann', 'second'));
  t.is((await cli('user limit ann max-connections')).code, 0);
  t.is((await cli(['user', 'permit', 'ann', '--exchange', 'amq.topic', '--write', '^k'])).code, 0);
  t.is((await cli('user forbid ann --exchange amq.topic')).code, 0);
  t.is((await cli('user forbid ann')).code, 0);
  t.false(await comesIn('ann', 'second'));
  t.is((await cli('user forbid ann')).code, 1);
  t.is((await cli('user delete ann')).code, 0);
  t.regex((await cli('user delete ann')).notes[0], /there is no user 'ann'/);
  const shown = [(await cli('user list -o json')).out, ...broker.lines].join('\n');
  t.notRegex(shown, /first|second|hash/i);
});

test.serial('mistakes are told before anything is done', async (t) => {
  t.regex((await cli('user add nopass', '')).notes[0], /there is no password for nopass/);
  t.is((await cli('user add nopass --password-file /does/not/exist')).code, 1);
  t.is((await cli('user permit guest')).code, 2);
  t.is((await cli('user permit guest --all --read x')).code, 2);
  t.regex((await cli('user permit guest --read (')).notes[0], /pattern should be regular expression but is invalid/);
  t.regex((await cli('user permit guest --vhost nope --all')).notes[0], /there is no vhost 'nope'/);
  t.is((await cli('user password nobody', 'x')).code, 1);
  t.notRegex((await cli('user list')).out, /nopass|nobody/);
});

test.serial('access keys are shown once', async (t) => {
  t.is((await cli('user add keyed --no-password')).code, 0);
  const made = await cli('user key keyed -o json');
  const { id, secret } = JSON.parse(made.out);
  t.is(broker.running.broker.directory.users.accessKey(id)?.secret, secret);
  const listed = await cli('user keys keyed -o json');
  t.is(JSON.parse(listed.out).id, id);
  t.false(listed.out.includes(secret));
  t.is((await cli('user key keyed --id OWNKEY', 'own secret\n')).code, 0);
  await broker.restart();
  t.is(broker.running.broker.directory.users.accessKey('OWNKEY')?.secret, 'own secret');
  t.is(broker.running.broker.directory.users.accessKey(id)?.secret, secret);
  t.is((await cli(`user key keyed --delete ${id}`)).code, 0);
  t.is(broker.running.broker.directory.users.accessKey(id), undefined);
});

test.serial('vhosts and policies are set and shown', async (t) => {
  t.is((await cli(['vhost', 'add', 'stage', '--description', 'for trials', '--queue-type', 'quorum'])).code, 0);
  t.is((await cli('vhost add stage')).code, 1);
  t.is((await cli('user permit guest --vhost stage --all')).code, 0);
  t.true(await comesIn('guest', 'guest', 'stage'));
  t.is((await cli('vhost limit stage max-queues 5')).code, 0);
  t.regex((await cli('vhost list')).out, /^stage +quorum +max-queues=5 +for trials$/m);
  t.is((await cli(['policy', 'set', 'short', '^a', 'max-length=5', 'overflow=drop-head', '-v', 'stage'])).code, 0);
  t.is((await cli(['policy', 'set', 'cap', '.*', 'max-length=9', '-v', 'stage', '--operator'])).code, 0);
  t.regex((await cli('policy list')).out, /^stage +short +\^a +all +0 +max-length=5, overflow=drop-head$/m);
  t.is(JSON.parse((await cli('policy list --operator -o json')).out).name, 'cap');
  t.regex((await cli('policy set bad . foo=1')).notes[0], /are not recognised policy settings/);
  t.is((await cli('policy delete short -v stage')).code, 0);
  t.is((await cli('policy delete short -v stage')).code, 1);
  t.is((await cli('vhost delete stage')).code, 0);
  t.false(await comesIn('guest', 'guest', 'stage'));
  t.regex((await cli('vhost delete /')).notes[0], /cannot be deleted/);
});
