import fc from 'fast-check';
import test from 'ava';
import { escapedName, registryName } from '../../../adapters/amqp/queue-names.ts';
import { topicNameProblem } from '../../../broker/topic-names.ts';

test("what a topic may be called in '/' is the topic's name, everything else is escaped", (t) => {
  t.is(registryName('/', 'orders.eu-1_x'), 'orders.eu-1_x');
  t.is(registryName('/', 'my queue'), 'amq.escaped.-2F.my-20queue');
  t.is(registryName('shop', 'orders'), 'amq.escaped.shop.orders');
  t.is(registryName('a.b', 'c_d'), 'amq.escaped.a-2Eb.c-5Fd');
  t.is(registryName('/', '__x'), 'amq.escaped.-2F.-5F-5Fx');
  t.regex(registryName('/', 'é'.repeat(127)), /^amq\.hashed\.[0-9a-f]{32}\.-C3-A9/);
});

test('an escaped name is a topic name, can be read back and collides with no other', (t) => {
  const text = fc.string({
    unit: fc.constantFrom('a', 'B', '0', '.', '_', '-', '/', ' ', 'é', '\n', '-2F'),
    maxLength: 20,
  });
  fc.assert(
    fc.property(text, text, text, text, (vhost, name, otherVhost, otherName) => {
      const registered = escapedName(vhost, name);
      t.is(topicNameProblem(registered), undefined);
      if (registered.startsWith('amq.escaped.')) t.deepEqual(readBack(registered), [vhost, name]);
      const isSame = vhost === otherVhost && name === otherName;
      const other = escapedName(otherVhost, otherName);
      const flat = (each: string): string => each.replaceAll('.', '_');
      t.is(flat(registered) === flat(other), isSame);
    }),
  );
});

/** By the rule of docs/amqp.md. */
function readBack(registered: string): string[] {
  const [, , vhost, ...name] = registered.split('.');
  return [vhost, name.join('.')].map((text) => {
    const bytes = text.replace(/-([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
    return Buffer.from(bytes, 'latin1').toString();
  });
}
