/**
 * Signature version 4 against AWS's published test suite: key AKIDEXAMPLE, service 'service'. A vector: lines of the request
 * as they would be sent, and the signature.
 */
import test from 'ava';
import { SqsError } from '../../../protocol/sqs/errors.ts';
import {
  canonicalRequest,
  claimOf,
  type SignableRequest,
  signatureOf,
  signingKey,
  stringToSign,
} from '../../../protocol/sqs/signature.ts';

const SECRET = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY';
const CREDENTIAL = 'AKIDEXAMPLE/20150830/us-east-1/service/aws4_request';
const HOST = 'Host:example.amazonaws.com';
const PRESIGNED = `X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=${encodeURIComponent(CREDENTIAL)}&X-Amz-Date=20150830T123600Z`;
const UNRESERVED = '-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

function request(target: string, headers: readonly string[], body = '', method = 'GET'): SignableRequest {
  const mark = target.indexOf('?');
  const values = new Map<string, string>();
  for (const line of [HOST, 'X-Amz-Date:20150830T123600Z', ...headers]) {
    const name = line.slice(0, line.indexOf(':')).toLowerCase();
    const value = line.slice(line.indexOf(':') + 1);
    const before = values.get(name);
    values.set(name, before === undefined ? value : `${before},${value}`);
  }
  return {
    method,
    path: mark < 0 ? target : target.slice(0, mark),
    query: mark < 0 ? '' : target.slice(mark + 1),
    header: (name) => values.get(name),
    body: Buffer.from(body),
  };
}

const authorization = (signedHeaders: string, signature: string): string =>
  `Authorization:AWS4-HMAC-SHA256 Credential=${CREDENTIAL}, SignedHeaders=${signedHeaders}, Signature=${signature}`;

const VECTORS: readonly (readonly [name: string, SignableRequest])[] = [
  [
    'a header that comes more than once',
    request('/', [
      'My-Header1:value2',
      'My-Header1:value2',
      'My-Header1:value1',
      authorization('host;my-header1;x-amz-date', 'c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea'),
    ]),
  ],
  [
    'spaces of values',
    request('/', [
      'My-Header1: value1',
      'My-Header2: "a   b   c"',
      authorization(
        'host;my-header1;my-header2;x-amz-date',
        'acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736',
      ),
    ]),
  ],
  [
    'a path that is not ASCII',
    request('/ሴ', [
      authorization('host;x-amz-date', '8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85'),
    ]),
  ],
  [
    'slashes side by side',
    request('//example//', [
      authorization('host;x-amz-date', '9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84'),
    ]),
  ],
  [
    'a path that goes up',
    request('/example1/example2/../..', [
      authorization('host;x-amz-date', '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31'),
    ]),
  ],
  [
    'a path that stays',
    request('/./', [
      authorization('host;x-amz-date', '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31'),
    ]),
  ],
  [
    'a space in the path',
    request('/example space/', [
      authorization('host;x-amz-date', '652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741'),
    ]),
  ],
  [
    'characters that stay',
    request(`/${UNRESERVED}`, [
      authorization('host;x-amz-date', '07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f'),
    ]),
  ],
  [
    'the order of parameters',
    request('/?Param2=value2&Param1=value1', [
      authorization('host;x-amz-date', 'b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500'),
    ]),
  ],
  [
    'a parameter that is not ASCII',
    request('/?ሴ=bar', [
      authorization('host;x-amz-date', '2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04'),
    ]),
  ],
  [
    'a form',
    request(
      '/',
      [
        'Content-Type:application/x-www-form-urlencoded',
        'Content-Length:13',
        'x-amz-content-sha256:9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e',
        authorization(
          'content-length;content-type;host;x-amz-content-sha256;x-amz-date',
          'd3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b',
        ),
      ],
      'Param1=value1',
      'POST',
    ),
  ],
  [
    'presigned, with a header',
    request(
      `/?${PRESIGNED}&X-Amz-SignedHeaders=host%3Bmy-header1&X-Amz-Expires=3600&X-Amz-Signature=3349ee0b81b4b589da0ff28a395c3591e04de515651dd74f298fa992d1507a97`,
      ['My-Header1:value2', 'My-Header1:value2', 'My-Header1:value1'],
    ),
  ],
  [
    'presigned, with a parameter',
    request(
      `/?${UNRESERVED}=${UNRESERVED}&${PRESIGNED}&X-Amz-SignedHeaders=host&X-Amz-Expires=3600&X-Amz-Signature=8e76a88a7433637b12778d5592799b29ad21ecd6cf6325051c21d86f0acda2bf`,
      [],
    ),
  ],
];

function isRight(signed: SignableRequest): boolean {
  const claim = claimOf(signed);
  if (claim === undefined) return false;
  const text = stringToSign(canonicalRequest(signed, claim), claim);
  return signatureOf(signingKey(SECRET, claim), text).toString('hex') === claim.signature;
}

for (const [name, signed] of VECTORS) {
  test(`published vector: ${name}`, (t) => {
    t.true(isRight(signed));
    t.false(isRight({ ...signed, body: Buffer.from('forged') }));
    t.false(isRight({ ...signed, method: 'PUT' }));
    t.false(isRight({ ...signed, query: `${signed.query}&a=b` }));
    t.false(isRight({ ...signed, path: '/other' }));
  });
}

test('a claim says when, by whom and for what', (t) => {
  const claim = claimOf(VECTORS[0][1]);
  t.is(claim?.accessKeyId, 'AKIDEXAMPLE');
  t.is(claim?.service, 'service');
  t.is(claim?.timeMs, Date.UTC(2015, 7, 30, 12, 36, 0));
  t.is(claim?.expiresSeconds, undefined);
  t.is(claimOf(VECTORS[11][1])?.expiresSeconds, 3600);
  t.is(claimOf(request('/', [])), undefined);
});

test('a claim that is not whole is refused', (t) => {
  const code = (signed: SignableRequest): string => {
    try {
      claimOf(signed);
    } catch (error) {
      if (error instanceof SqsError) return error.code;
      throw error;
    }
    return '';
  };
  const good = 'c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea';
  for (const line of [
    'Authorization:Basic eA==',
    'Authorization:AWS4-HMAC-SHA256',
    `Authorization:AWS4-HMAC-SHA256 Credential=${CREDENTIAL}, SignedHeaders=host`,
    `Authorization:AWS4-HMAC-SHA256 Credential=AKID/20150830, SignedHeaders=host, Signature=${good}`,
    `Authorization:AWS4-HMAC-SHA256 Credential=${CREDENTIAL}x, SignedHeaders=host, Signature=${good}`,
    authorization('host', 'zz'),
  ]) {
    t.is(code(request('/', [line])), 'IncompleteSignature', line);
  }
  for (const query of [
    'X-Amz-Signature=',
    `X-Amz-Signature=${good}`,
    `${PRESIGNED}&X-Amz-SignedHeaders=host&X-Amz-Expires=604801&X-Amz-Signature=${good}`,
    `${PRESIGNED}&X-Amz-SignedHeaders=host&X-Amz-Expires=-1&X-Amz-Signature=${good}`,
  ]) {
    t.is(code(request(`/?${query}`, [])), 'IncompleteSignature', query);
  }
});
