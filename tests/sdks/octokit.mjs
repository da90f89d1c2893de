// GitHub's own SDK: a page walk by absolute Link URLs, a redirect, GraphQL. Nothing is set but the base URL and the token.
import { Octokit } from "octokit";
import { said, wanted } from "./wanted.mjs";

const { baseUrl, key } = await wanted();
const octokit = new Octokit({ auth: key, baseUrl });
const me = await octokit.rest.users.getAuthenticated();
const issues = await octokit.paginate(octokit.rest.issues.listForRepo, { owner: "o", repo: "r", per_page: 2 });
const made = await octokit.rest.issues.create({ owner: "o", repo: "r", title: "Ä" });
const moved = await octokit.rest.repos.get({ owner: "o", repo: "old" });
const { viewer } = await octokit.graphql("{ viewer { login } }");
const missing = await octokit.rest.repos.get({ owner: "o", repo: "nothing" }).catch((error) => error.status);
said({ me: me.data.login, issues: issues.map((issue) => issue.number), made: made.headers.location, moved: moved.data.id, viewer: viewer.login, missing });
