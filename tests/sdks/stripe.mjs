// Stripe's own SDK, which takes a host and a port and no path: by a listener of its own.
import Stripe from "stripe";
import { said, wanted } from "./wanted.mjs";

const { baseUrl, key } = await wanted();
const { hostname, port } = new URL(baseUrl);
const stripe = new Stripe(key, { host: hostname, port, protocol: "http", telemetry: false, maxNetworkRetries: 0 });
const customers = await stripe.customers.list({ limit: 2 }).autoPagingToArray({ limit: 100 });
const made = await stripe.customers.create({ email: "a@example.com", metadata: { plan: "Ä & b" } });
const missing = await stripe.customers.retrieve("nothing").catch((error) => error.code);
said({ customers: customers.map((customer) => customer.id), made: made.email, missing });
