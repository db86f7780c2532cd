// The official SDK clients, 1.x (revision 2025-11-25) and 2.x (legacy, auto and pinned 2026-07-28), list and call every tool.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport as Stdio1 } from '@modelcontextprotocol/sdk/client/stdio.js';
import { Client as Client2 } from '@modelcontextprotocol/client';
import { StdioClientTransport as Stdio2 } from '@modelcontextprotocol/client/stdio';
import { calls, freshHome, server, serverEnv } from './calls.mjs';

const info = { name: 'hutch-sdk-test', version: '1' };
// `options` of a request stand last in callTool of both SDKs, after the result schema in 1.x.
const flavours = [
  { name: 'sdk 1.x', make: () => new Client1(info), Stdio: Stdio1, call: (c, p, o) => c.callTool(p, undefined, o) },
  ...[['legacy', 'legacy'], ['auto', 'modern'], [{ pin: '2026-07-28' }, 'modern']].map(([mode, era]) => ({
    name: `client 2.x ${mode.pin ?? mode}`,
    make: () => new Client2(info, { versionNegotiation: { mode } }),
    Stdio: Stdio2, era, call: (c, p, o) => c.callTool(p, o),
  })),
];

async function connected(flavour, args, use) {
  const { home, remove } = freshHome();
  const transport = new flavour.Stdio({ ...server(...args), env: serverEnv(home), stderr: 'inherit' });
  const client = flavour.make();
  const errors = [];
  client.onerror = (error) => errors.push(error);
  try {
    await client.connect(transport);
    await use(client);
  } finally {
    await client.close();
    remove();
  }
  assert.deepEqual(errors, [], 'the client complained about what the server sent');
}

const textOf = (result) => result.content.filter((c) => c.type === 'text').map((c) => c.text).join('\n');

for (const flavour of flavours) {
  for (const results of ['text', 'structured']) {
    test(`${flavour.name} lists and calls every tool, results ${results}`, async () => {
      await connected(flavour, ['--results', results], async (client) => {
        if (flavour.era) assert.equal(client.getProtocolEra(), flavour.era);
        assert.equal(client.getServerVersion().name, 'hutch');
        const { tools, nextCursor } = await client.listTools();
        assert.equal(nextCursor, undefined, 'one page');
        assert.deepEqual(tools.map((t) => t.name), tools.map((t) => t.name).sort());
        assert.deepEqual(new Set(tools.map((t) => t.name)), new Set(calls.map((c) => c.tool)), 'calls.mjs has one call for each tool');
        for (const { tool, args, text, field } of calls) {
          // The client validates structuredContent against outputSchema on its own.
          const result = await flavour.call(client, { name: tool, arguments: args });
          assert.ok(!result.isError, `${tool}: ${textOf(result)}`);
          if (results === 'text') {
            assert.match(textOf(result), text, tool);
            assert.equal(result.structuredContent, undefined, tool);
          } else {
            assert.ok(field in result.structuredContent, `${tool} has no ${field}: ${JSON.stringify(result.structuredContent)}`);
          }
        }
      });
    });
  }

  test(`${flavour.name} lists, completes and reads resources`, async () => {
    await connected(flavour, [], async (client) => {
      assert.deepEqual((await client.listResources()).resources.map((r) => r.uri), ['hutch://status', 'hutch://config']);
      const { resourceTemplates } = await client.listResourceTemplates();
      assert.deepEqual(resourceTemplates.map((t) => t.name), ['file', 'log']);
      await flavour.call(client, { name: 'sandbox_create', arguments: { name: 'shelf' } });
      const write = "printf 'six\\n' | tee text; printf '\\0\\1' > bytes";
      await flavour.call(client, { name: 'sandbox_exec', arguments: { sandbox_id: 'shelf', command: write } });
      const read = async (uri) => (await client.readResource({ uri })).contents[0];
      assert.equal(JSON.parse((await read('hutch://status')).text).sandboxes[0].name, 'shelf');
      assert.equal(JSON.parse((await read('hutch://config')).text).settings.results, 'text');
      assert.equal((await read('sandbox://shelf/files/workspace/text')).text, 'six\n');
      assert.equal((await read('sandbox://shelf/files/workspace/bytes')).blob, 'AAE=');
      assert.equal((await read('sandbox://shelf/logs/1')).text, 'six\n');
      const { completion } = await client.complete({
        ref: { type: 'ref/resource', uri: resourceTemplates[0].uriTemplate }, argument: { name: 'id', value: 'sh' } });
      assert.deepEqual(completion.values, ['shelf']);
      await assert.rejects(read('sandbox://shelf/files/none'), (error) => [-32002, -32602].includes(error.code));
    });
  });

  test(`${flavour.name} gets progress and can cancel`, async () => {
    await connected(flavour, [], async (client) => {
      const seen = [];
      const command = 'for i in 1 2 3 4 5 6; do echo step $i; sleep 1; done';
      await flavour.call(client, { name: 'sandbox_exec', arguments: { command } }, { onprogress: (p) => seen.push(p) });
      assert.ok(seen.length > 0, 'a command of 6 s gave no progress');
      assert.ok(seen.every((p, i) => i === 0 || p.progress > seen[i - 1].progress), JSON.stringify(seen));

      const stop = new AbortController();
      const long = flavour.call(client, { name: 'sandbox_exec', arguments: { command: "trap '' TERM; (setsid sleep 1000 &); touch /tmp/on; sleep 1000" } }, { signal: stop.signal });
      const rejected = assert.rejects(long);
      const look = (what) => flavour.call(client, { name: 'sandbox_exec', arguments: { command: what } });
      while (/^exit 1/.test(textOf(await look('test -e /tmp/on')))); // each look takes a round trip: no sleep needed
      stop.abort('enough');
      await rejected;
      const deadline = Date.now() + 6_000; // 3 s, of which 2 s are the grace, and what a busy machine takes
      while (/^exit 0/.test(textOf(await look('pgrep -x sleep'))))
        assert.ok(Date.now() < deadline, 'the cancelled command still runs');
    });
  });
}

test('sdk 1.x asks for a task, follows it to its result, lists and cancels', async () => {
  await connected(flavours[0], [], async (client) => {
    const tasks = client.experimental.tasks;
    await client.listTools();
    const stream = (command) => tasks.callToolStream({ name: 'sandbox_exec', arguments: { command } }, undefined, { task: { ttl: 60_000 } });
    const seen = [];
    for await (const message of stream('sleep 1; echo 54')) seen.push(message);
    assert.equal(seen[0].type, 'taskCreated');
    assert.equal(seen.at(-1).type, 'result');
    assert.match(textOf(seen.at(-1).result), /^exit 0 in[^]*54/);

    const { value: created } = await stream('sleep 1000').next();
    const listed = await tasks.listTasks();
    assert.deepEqual(listed.tasks.map((t) => [t.taskId, t.status]),
      [[seen[0].task.taskId, 'completed'], [created.task.taskId, 'working']]);
    assert.equal((await tasks.cancelTask(created.task.taskId)).status, 'cancelled');
    assert.equal((await tasks.getTask(created.task.taskId)).status, 'cancelled');
  });
});
