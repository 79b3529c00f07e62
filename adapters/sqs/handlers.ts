/** What the door calls for each action. */
import type { ActionName, Input, Output } from '../../protocol/sqs/actions.ts';
import type { Call } from './call.ts';

export type Handlers = {
  readonly [Name in ActionName]: (input: Input<Name>, call: Call) => Output<Name> | Promise<Output<Name>>;
};
