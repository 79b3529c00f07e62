/** Requests and answers of both protocols, their digests and character rules, and any bytes. */
import { hash } from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import { actions, type AttributeValue, isAction } from '../../../protocol/sqs/actions.ts';
import { md5, md5OfAttributes } from '../../../protocol/sqs/digest.ts';
import { SqsError } from '../../../protocol/sqs/errors.ts';
import { parseForm, readForm } from '../../../protocol/sqs/form.ts';
import { jsonError, parseJson, queryErrorHeader, readJson, writeJson } from '../../../protocol/sqs/json.ts';
import {
  attributeNameProblem,
  isAllowedText,
  isAttributeType,
  isBatchId,
  isId,
  isNumberText,
  isQueueName,
} from '../../../protocol/sqs/text.ts';
import { escapeXml, xmlAnswer, xmlError } from '../../../protocol/sqs/xml.ts';

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const codeOf = (work: () => unknown): [string, string] => {
  try {
    work();
  } catch (error) {
    if (error instanceof SqsError) return [error.code, error.message];
    throw error;
  }
  return ['', ''];
};

const attribute = { DataType: 'Binary', BinaryValue: Buffer.from([1, 2, 255]) };

test('a send is the same in both protocols', (t) => {
  const { input } = actions.SendMessage;
  const fromJson = readJson(
    input,
    parseJson(
      json({
        QueueUrl: 'q',
        MessageBody: 'a & b',
        DelaySeconds: 3,
        MessageAttributes: { kind: { DataType: 'Binary', BinaryValue: 'AQL/' } },
        Unknown: [1],
        MessageGroupId: null,
      }),
    ),
  );
  const fromForm = readForm(
    input,
    parseForm(
      'Action=SendMessage&QueueUrl=q',
      'MessageBody=a+%26%20b&DelaySeconds=3&MessageAttribute.1.Name=kind&MessageAttribute.1.Value.DataType=Binary' +
        '&MessageAttribute.1.Value.BinaryValue=AQL%2F',
    ),
  );
  const expected: typeof fromJson = {
    QueueUrl: 'q',
    MessageBody: 'a & b',
    DelaySeconds: 3,
    MessageAttributes: new Map([['kind', attribute]]),
  };
  t.deepEqual(fromJson, expected);
  t.deepEqual(fromForm, expected);
});

test('lists of a form are ordered by their numbers and go by two names', (t) => {
  const { input } = actions.SendMessageBatch;
  const form = parseForm(
    'QueueUrl=q&SendMessageBatchRequestEntry.10.Id=c&SendMessageBatchRequestEntry.10.MessageBody=3' +
      '&SendMessageBatchRequestEntry.2.Id=b&SendMessageBatchRequestEntry.2.MessageBody=2' +
      '&SendMessageBatchRequestEntry.1.Id=a&SendMessageBatchRequestEntry.1.MessageBody=1',
  );
  t.deepEqual(
    readForm(input, form).Entries.map(({ Id }) => Id),
    ['a', 'b', 'c'],
  );
  const names = readForm(actions.GetQueueAttributes.input, parseForm('QueueUrl=q&AttributeNames.1=All'));
  t.deepEqual(names.AttributeNames, ['All']);
  const queue = readForm(
    actions.CreateQueue.input,
    parseForm('QueueName=q&Attribute.1.Name=DelaySeconds&Attribute.1.Value=5&Tag.1.Key=a&Tag.1.Value=b'),
  );
  t.deepEqual(queue.Attributes, new Map([['DelaySeconds', '5']]));
  t.deepEqual(queue.tags, new Map([['a', 'b']]));
});

test('what is missing or of another type is named', (t) => {
  const { input } = actions.SendMessageBatch;
  t.deepEqual(
    codeOf(() => readJson(input, { QueueUrl: 'q', Entries: [{ Id: 'a', MessageBody: 'x' }, { Id: 'b' }] })),
    ['MissingParameter', 'The request must contain the parameter Entries.SendMessageBatchRequestEntry.2.MessageBody.'],
  );
  t.deepEqual(readForm(input, parseForm('QueueUrl=q')).Entries, []);
  t.is(codeOf(() => readForm(input, parseForm('Action=x')))[0], 'MissingParameter');
  for (const [value, message] of [
    ['5', 'STRING_VALUE can not be converted to an Integer'],
    [1.5, 'DECIMAL_VALUE can not be converted to an Integer'],
    [true, 'TRUE_VALUE can not be converted to an Integer'],
    [{}, 'START_OBJECT can not be converted to an Integer'],
    [2 ** 31, 'NUMBER_VALUE can not be converted to an Integer'],
  ] as const) {
    const request = { QueueUrl: 'q', MessageBody: 'x', DelaySeconds: value };
    t.deepEqual(
      codeOf(() => readJson(actions.SendMessage.input, request)),
      ['SerializationException', message],
    );
  }
  const request = parseForm('QueueUrl=q&MessageBody=x&DelaySeconds=soon');
  t.is(codeOf(() => readForm(actions.SendMessage.input, request))[0], 'InvalidParameterValue');
  for (const body of ['[', '"text"', '[]', 'nul', '\u0000']) {
    const read = (): unknown => readJson(actions.ListQueues.input, parseJson(Buffer.from(body)));
    t.is(codeOf(read)[0], 'SerializationException', body);
  }
});

test('bombs are refused before they cost anything', (t) => {
  t.is(codeOf(() => parseJson(Buffer.from('['.repeat(1_000_000))))[0], 'SerializationException');
  t.is(codeOf(() => parseJson(Buffer.from('{"a":'.repeat(1000))))[0], 'SerializationException');
  t.is(codeOf(() => parseForm('a=1&'.repeat(100_000)))[0], 'MalformedQueryString');
  t.is(codeOf(() => parseForm('a=%ff'))[0], 'MalformedQueryString');
  t.deepEqual(parseForm(`${'a.'.repeat(50_000)}=1`).children.size, 0);
  // Brackets in texts are texts.
  t.is(JSON.stringify(parseJson(json({ a: '[[{"\\'.repeat(100) }))).length > 100, true);
});

test('names of the prototype are names', (t) => {
  const read = readJson(
    actions.TagQueue.input,
    JSON.parse('{"QueueUrl":"q","Tags":{"__proto__":"x","constructor":"y"}}'),
  );
  t.deepEqual(
    [...read.Tags],
    [
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ],
  );
  t.is(
    codeOf(() => readJson(actions.SendMessage.input, JSON.parse('{"__proto__":{"QueueUrl":"q"}}')))[0],
    'MissingParameter',
  );
  t.deepEqual(
    readForm(actions.TagQueue.input, parseForm('QueueUrl=q&Tag.1.Key=__proto__&Tag.1.Value=x')).Tags,
    new Map([['__proto__', 'x']]),
  );
});

test('answers in both protocols', (t) => {
  const output = {
    Messages: [
      {
        MessageId: 'id',
        Body: '<a>\r\n"&\'',
        Attributes: new Map([['SenderId', 'me']]),
        MessageAttributes: new Map([['kind', attribute]]),
      },
    ],
  };
  t.deepEqual(JSON.parse(writeJson(actions.ReceiveMessage.output, output)), {
    Messages: [
      {
        MessageId: 'id',
        Body: '<a>\r\n"&\'',
        Attributes: { SenderId: 'me' },
        MessageAttributes: { kind: { DataType: 'Binary', BinaryValue: 'AQL/' } },
      },
    ],
  });
  t.is(
    xmlAnswer('ReceiveMessage', output, 'r'),
    '<?xml version="1.0"?><ReceiveMessageResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/"><ReceiveMessageResult>' +
      '<Message><MessageId>id</MessageId><Body>&lt;a&gt;&#xD;\n&quot;&amp;&apos;</Body>' +
      '<Attribute><Name>SenderId</Name><Value>me</Value></Attribute>' +
      '<MessageAttribute><Name>kind</Name><Value><DataType>Binary</DataType><BinaryValue>AQL/</BinaryValue></Value>' +
      '</MessageAttribute></Message></ReceiveMessageResult>' +
      '<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></ReceiveMessageResponse>',
  );
  t.is(
    xmlAnswer('DeleteQueue', {}, 'r'),
    '<?xml version="1.0"?><DeleteQueueResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/">' +
      '<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></DeleteQueueResponse>',
  );
});

test('errors in both protocols', (t) => {
  const error = new SqsError('QueueDoesNotExist', 'The specified queue <does> not exist.');
  t.is(queryErrorHeader(error), 'AWS.SimpleQueueService.NonExistentQueue;Sender');
  t.deepEqual(JSON.parse(jsonError(error)), {
    __type: 'com.amazonaws.sqs#QueueDoesNotExist',
    message: 'The specified queue <does> not exist.',
  });
  t.is(
    xmlError(error, 'r'),
    '<?xml version="1.0"?><ErrorResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/"><Error><Type>Sender</Type>' +
      '<Code>AWS.SimpleQueueService.NonExistentQueue</Code><Message>The specified queue &lt;does&gt; not exist.</Message>' +
      '<Detail/></Error><RequestId>r</RequestId></ErrorResponse>',
  );
  t.is(queryErrorHeader(new SqsError('InternalFailure', '')), 'InternalFailure;Receiver');
});

test('XML never carries what XML has not', (t) => {
  t.is(escapeXml('\u0000\u0008\uFFFE\uD800x'), '\uFFFD\uFFFD\uFFFD\uFFFDx');
  t.is(escapeXml('😀ä'), '😀ä');
});

test('the digest of attributes is that of the developer guide', (t) => {
  // By hand: sorted by name, sizes before texts, a byte that says text or binary.
  const attributes = new Map<string, AttributeValue>([
    ['b', attribute],
    ['a', { DataType: 'String.x', StringValue: 'ä' }],
  ]);
  const bytes = Buffer.concat([
    Buffer.from([0, 0, 0, 1]),
    Buffer.from('a'),
    Buffer.from([0, 0, 0, 8]),
    Buffer.from('String.x'),
    Buffer.from([1, 0, 0, 0, 2]),
    Buffer.from('ä'),
    Buffer.from([0, 0, 0, 1]),
    Buffer.from('b'),
    Buffer.from([0, 0, 0, 6]),
    Buffer.from('Binary'),
    Buffer.from([2, 0, 0, 0, 3, 1, 2, 255]),
  ]);
  t.is(md5OfAttributes(attributes), hash('md5', bytes));
  t.is(md5OfAttributes(new Map()), undefined);
  t.is(md5('hello'), '5d41402abc4b2a76b9719d911017c592');
});

test('texts, ids and names', (t) => {
  for (const text of ['', '\t\n\r ~', '\uD7FF\uE000\uFFFD', '😀']) t.true(isAllowedText(text), JSON.stringify(text));
  for (const text of ['\u0000', '\u000b', '\uFFFE', '\uFFFF', '\uD800', '\uDC00', '\uD800a', '\uDC00\uD800']) {
    t.false(isAllowedText(text), JSON.stringify(text));
  }
  t.true(isQueueName('a'.repeat(80)));
  t.true(isQueueName(`${'a'.repeat(75)}.fifo`));
  for (const name of ['', 'a'.repeat(81), `${'a'.repeat(76)}.fifo`, '.fifo', 'a.b', 'a b', '../x', 'ä']) {
    t.false(isQueueName(name), name);
  }
  t.true(isBatchId('a-_9'));
  for (const id of ['', 'a b', 'ä', 'a'.repeat(81), 'a.b']) t.false(isBatchId(id));
  t.true(isId('aZ9!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~'));
  for (const id of ['', ' ', 'ä', 'a'.repeat(129)]) t.false(isId(id));
  for (const name of ['a', 'a.b', 'A-_9']) t.is(attributeNameProblem(name), undefined);
  for (const name of ['', 'a b', '.a', 'a.', 'a..b', 'AWS.x', 'amazon.x', 'ä', 'a'.repeat(257)]) {
    t.not(attributeNameProblem(name), undefined, name);
  }
  for (const type of ['String', 'Number.int', 'Binary.png', 'String.a.b']) t.true(isAttributeType(type));
  for (const type of ['', 'string', 'Strings', 'String.', 'Text', `String.${'x'.repeat(250)}`]) {
    t.false(isAttributeType(type), type);
  }
  for (const text of ['0', '-1.5', '+2e10', '.5', '1.']) t.true(isNumberText(text));
  for (const text of ['', 'x', '1,5', '0x10', 'NaN', '1e']) t.false(isNumberText(text));
});

test('any bytes are a request or an error', (t) => {
  const names = Object.keys(actions).filter(isAction);
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.constantFrom(...names), fc.jsonValue({ maxDepth: 6 }), (name, value) => {
        codeOf(() => readJson(actions[name].input, parseJson(json(value))));
      }),
    ),
  );
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.constantFrom(...names), fc.string({ unit: 'binary' }), (name, text) => {
        codeOf(() => readForm(actions[name].input, parseForm(text)));
        codeOf(() => readJson(actions[name].input, parseJson(Buffer.from(text))));
      }),
    ),
  );
});
