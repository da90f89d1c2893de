// What a script is told on stdin ({baseUrl, key}, a key is no process argument), and what it says: one line of JSON.
export async function wanted() {
  let text = "";
  for await (const part of process.stdin) text += part;
  return JSON.parse(text);
}

export function said(what) {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}
