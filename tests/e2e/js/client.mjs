// What people do with ollama-js: `node client.mjs URL BEHAVIOUR…` does one thing after the other and
// prints, as JSON, what came of each.
import { createHash } from 'node:crypto'
import { Ollama } from 'ollama'

const TEXT = 'smollm2:135m'
const NEW = 'qwen2.5:0.5b'
const [url, ...asked] = process.argv.slice(2)
const ollama = new Ollama({ host: url })
const talk = { model: TEXT, messages: [{ role: 'user', content: 'Why is the sky blue?' }], options: { num_predict: 8 } }

const collected = async (stream) => {
  const parts = []
  for await (const part of await stream) parts.push(part)
  return parts
}

const error = async (promise) => {
  try {
    await promise
    return null
  } catch (caught) {
    return { name: caught.name, status: caught.status_code ?? null, message: caught.message }
  }
}

// Takes `count` parts, then stops the request.
const aborted = async (stream, count) => {
  const parts = []
  const caught = await error(
    (async () => {
      for await (const part of stream) {
        parts.push(part)
        if (parts.length === count) ollama.abort()
      }
    })(),
  )
  return { parts: parts.length, error: caught }
}

const behaviours = {
  pull: async () => collected(ollama.pull({ model: NEW, stream: true })),
  'pull at once': async () => ollama.pull({ model: NEW }),
  'pull what nobody has': async () => error(collected(ollama.pull({ model: 'nobody-has-this', stream: true }))),
  'abort a pull': async () => aborted(await ollama.pull({ model: NEW, stream: true }), 2),
  create: async () => collected(ollama.create({ model: 'mine', from: TEXT, system: 'Be terse.', stream: true })),
  'create from a blob': async () => {
    const blob = Buffer.alloc(3_000_000, 'ollama')
    const digest = `sha256:${createHash('sha256').update(blob).digest('hex')}`
    const statuses = []
    for (const method of ['HEAD', 'POST', 'HEAD', 'POST']) {
      const body = method === 'POST' ? blob : undefined
      const response = await fetch(`${url}/api/blobs/${digest}`, { method, body })
      statuses.push(response.status)
      await response.arrayBuffer()
    }
    return { digest, statuses, progress: await ollama.create({ model: 'mine', files: { 'a.gguf': digest } }) }
  },
  copy: async () => ollama.copy({ source: TEXT, destination: 'mine' }),
  'copy what nobody has': async () => error(ollama.copy({ source: 'nobody-has-this', destination: 'mine' })),
  delete: async () => ollama.delete({ model: TEXT }),
  'delete what nobody has': async () => error(ollama.delete({ model: 'nobody-has-this' })),
  push: async () => collected(ollama.push({ model: TEXT, stream: true })),
  list: async () => ollama.list(),
  ps: async () => ollama.ps(),
  show: async () => ollama.show({ model: TEXT }),
  'show what nobody has': async () => error(ollama.show({ model: 'nobody-has-this' })),
  version: async () => ollama.version(),
  chat: async () => ollama.chat(talk),
  'stream a chat': async () => collected(ollama.chat({ ...talk, stream: true })),
  'chat with nobody': async () => error(ollama.chat({ ...talk, model: 'nobody-has-this' })),
  'break a chat': async () => error(collected(ollama.chat({ ...talk, stream: true }))),
  'abort a chat': async () => aborted(await ollama.chat({ ...talk, options: { num_predict: 400 }, stream: true }), 3),
  generate: async () => ollama.generate({ model: TEXT, prompt: 'Why?', options: { num_predict: 8 } }),
  'stream a generation': async () =>
    collected(ollama.generate({ model: TEXT, prompt: 'Why?', options: { num_predict: 8 }, stream: true })),
  embed: async () => ollama.embed({ model: 'all-minilm', input: ['a', 'b'] }),
  embeddings: async () => ollama.embeddings({ model: 'all-minilm', prompt: 'a' }),
}

const done = []
for (const behaviour of asked) done.push(await behaviours[behaviour]())
console.log(JSON.stringify(done))
