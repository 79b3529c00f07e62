import test from 'ava';
import { advertiser } from '../../broker/advertised.ts';

const local = { localHost: '10.0.0.7', localPort: 9092 };

test('what clients are told is the option, else the host of the door, else where they connected to', (t) => {
  const told = (listeners: string, doorHost = ''): string => {
    const { host, port } = advertiser(listeners, doorHost)(local);
    return `${host} ${port}`;
  };
  t.is(told(''), '10.0.0.7 9092');
  t.is(told('', '127.0.0.1'), '127.0.0.1 9092');
  t.is(told('broker.example:19092', '127.0.0.1'), 'broker.example 19092');
  t.is(told('PLAINTEXT://broker.example:19092'), 'broker.example 19092');
  t.is(told(' EXTERNAL://broker.example:19092 '), 'broker.example 19092');
  t.is(told('broker.example'), 'broker.example 9092');
  t.is(told('PLAINTEXT://:19092', 'door'), 'door 19092');
  t.is(told('PLAINTEXT://[2001:db8::1]:19092'), '2001:db8::1 19092');
  t.is(told('[fe80::1%eth0]'), 'fe80::1%eth0 9092');
});

test('an IPv4 address of a dual-stack socket is told in its own form', (t) => {
  t.is(advertiser('', '')({ localHost: '::ffff:10.0.0.7', localPort: 1 }).host, '10.0.0.7');
});

test('an address that no client could use is refused', (t) => {
  for (const text of [
    'a:1,b:2',
    '::1:9092',
    'a:b',
    'a:99999',
    'a:-1',
    'http://a/b',
    'a b:1',
    '0.0.0.0:9092',
    'PLAINTEXT://[::]:9092',
    'SSL://a:9093',
    '[a:1',
  ]) {
    t.throws(() => advertiser(text, ''), { code: 'INVALID_OPTION', message: /^advertised\.listeners / }, text);
  }
});
