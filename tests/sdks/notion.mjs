// Notion's own SDK: search, a page walk, a file in parts. Nothing is set but the base URL and the token.
import { Client, iteratePaginatedAPI } from "@notionhq/client";
import { said, wanted } from "./wanted.mjs";

const { baseUrl, key } = await wanted();
const notion = new Client({ auth: key, baseUrl });
const found = await notion.search({ query: "roadmap" });
const blocks = [];
for await (const block of iteratePaginatedAPI(notion.blocks.children.list, { block_id: "p1", page_size: 2 })) blocks.push(block.id);
const upload = await notion.fileUploads.create({ mode: "single_part", filename: "a.txt" });
const sent = await notion.fileUploads.send({ file_upload_id: upload.id, file: { filename: "a.txt", data: new Blob(["x".repeat(300000)]) } });
const missing = await notion.pages.retrieve({ page_id: "nothing" }).catch((error) => error.code);
said({ found: found.results.length, blocks, sent: sent.status, missing });
