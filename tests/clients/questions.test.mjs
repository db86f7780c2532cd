// The official SDK clients ask their user for a tool: by requests (1.x, legacy), by input_required (2026-07-28).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport as Stdio1 } from '@modelcontextprotocol/sdk/client/stdio.js';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { Client as Client2 } from '@modelcontextprotocol/client';
import { StdioClientTransport as Stdio2 } from '@modelcontextprotocol/client/stdio';
import { echoServer } from './calls.mjs';

const info = { name: 'hutch-sdk-test', version: '1' };
const forms = { elicitation: { form: {} } };
const flavours = [
  { name: 'sdk 1.x', Stdio: Stdio1, make: (o) => new Client1(info, o), method: ElicitRequestSchema, answer: (said) => said },
  ...[['legacy', (said) => said], [{ pin: '2026-07-28' }, (said) => `it, work of it: ${said}`]].map(([mode, answer]) => ({
    name: `client 2.x ${mode.pin ?? mode}`, Stdio: Stdio2, method: 'elicitation/create', answer,
    make: (options) => new Client2(info, { ...options, versionNegotiation: { mode } }),
  })),
];

async function connected(flavour, options, use) {
  const client = flavour.make(options);
  const errors = [];
  client.onerror = (error) => errors.push(error);
  try {
    await client.connect(new flavour.Stdio({ ...echoServer(), stderr: 'ignore' }));
    await use(client);
  } finally {
    await client.close();
  }
  assert.deepEqual(errors, [], 'the client complained about what the server sent');
}

const ask = async (client) => (await client.callTool({ name: 'ask', arguments: { name: 'it' } })).content[0].text;

for (const flavour of flavours) {
  test(`${flavour.name} shows the question and brings the answer`, async () => {
    await connected(flavour, { capabilities: forms }, async (client) => {
      const asked = [];
      const answers = [
        [{ action: 'accept', content: { choice: 'sandbox' } }, 'chosen sandbox'],
        [{ action: 'decline' }, 'declined'],
        [{ action: 'cancel' }, 'none'],
      ];
      client.setRequestHandler(flavour.method, async ({ params }) => {
        asked.push(params);
        return answers[asked.length - 1][0];
      });
      for (const [, said] of answers) assert.equal(await ask(client), flavour.answer(said));
      assert.equal(asked.length, answers.length);
      assert.equal(asked[0].message, 'Allow it?');
      assert.deepEqual(asked[0].requestedSchema.properties.choice.oneOf[1], { const: 'sandbox', title: 'For this sandbox' });
    });
  });

  test(`${flavour.name} without forms is not asked`, async () => {
    await connected(flavour, {}, async (client) => assert.equal(await ask(client), 'none'));
  });
}
