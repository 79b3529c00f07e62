/** The tables of actions and errors against the service model that the AWS SDKs are generated from. */
import test from 'ava';
import { actions, type ActionName, isAction } from '../../../protocol/sqs/actions.ts';
import { sqsErrors } from '../../../protocol/sqs/errors.ts';
import type { Shape } from '../../../protocol/sqs/shapes.ts';
import { serviceModel } from './service-model.ts';

const names = Object.keys(actions).filter(isAction);

test('the actions are those of the model', (t) => {
  t.deepEqual(names.toSorted(), Object.keys(serviceModel.operations).toSorted());
  t.is(names.length, 23);
});

/** Both as plain values that can be compared. */
function ofTable(shape: Shape): unknown {
  switch (shape.type) {
    case 'list':
      return { list: ofTable(shape.member) };
    case 'map':
      return { map: ofTable(shape.value) };
    case 'structure': {
      const members = Object.entries(shape.members).map(([name, member]) => [
        name,
        { shape: ofTable(member.shape), isRequired: member.isRequired },
      ]);
      return { structure: Object.fromEntries(members) };
    }
    default:
      return shape.type;
  }
}
function ofModel(name: string): unknown {
  const { type, members = {}, member, value, required = [] } = serviceModel.shapes[name];
  if (type === 'list') return { list: ofModel(member?.shape ?? '') };
  if (type === 'map') return { map: ofModel(value?.shape ?? '') };
  if (type !== 'structure') return type;
  const entries = Object.entries(members).map(([key, { shape }]) => [
    key,
    { shape: ofModel(shape), isRequired: required.includes(key) },
  ]);
  return { structure: Object.fromEntries(entries) };
}

for (const name of names) {
  test(`${name} takes and gives what the model says`, (t) => {
    const { input, output } = serviceModel.operations[name];
    t.deepEqual(ofTable(actions[name].input), ofModel(input));
    t.is(actions[name].hasOutput, output !== null);
    if (output !== null) t.deepEqual(ofTable(actions[name].output), ofModel(output));
  });
}

test('errors have the codes and statuses of the model, and none is missing', (t) => {
  const table: Readonly<Record<string, { query: string; status: number }>> = sqsErrors;
  for (const [name, [query, status]] of Object.entries(serviceModel.errors)) {
    t.deepEqual(table[name], { query, status }, name);
  }
  const used = new Set(Object.values(serviceModel.operations).flatMap(({ errors }) => errors));
  t.deepEqual(
    [...used].filter((name) => !(name in table)),
    [],
  );
});

test('lists and maps of the query protocol have the names of its last model', (t) => {
  const { queryNames, operations, shapes } = serviceModel;
  const wrong: string[] = [];
  const compare = (shape: Shape, modelName: string, mapName: unknown): void => {
    const model = shapes[modelName];
    const known = queryNames[modelName];
    if (shape.type === 'list') {
      // Lists that came with the JSON protocol have no name there.
      if (known !== undefined && shape.element !== known) wrong.push(`${modelName}: ${shape.element}, not ${known}`);
      compare(shape.member, model.member?.shape ?? '', undefined);
    } else if (shape.type === 'map') {
      if (mapName !== undefined && shape.element !== mapName)
        wrong.push(`${modelName}: ${shape.element}, not ${mapName}`);
      if (known !== undefined && (shape.keyName !== known[0] || known[1] !== 'Value')) wrong.push(modelName);
      compare(shape.value, model.value?.shape ?? '', undefined);
    } else if (shape.type === 'structure') {
      for (const [name, member] of Object.entries(shape.members)) {
        compare(member.shape, model.members?.[name].shape ?? '', queryNames[`${modelName}.${name}`]);
      }
    }
  };
  for (const name of names) {
    compare(actions[name satisfies ActionName].input, operations[name].input, undefined);
    const { output } = operations[name];
    if (output !== null) compare(actions[name].output, output, undefined);
  }
  t.deepEqual(wrong, []);
});
