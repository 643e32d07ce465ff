// What fhir-kit-client does with a server: FHIR_BASE and FHIR_TOKEN name it. Prints each step that went well.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { CapabilityTool, Client } from 'fhir-kit-client';

const NUMBERS = 'urn:oid:2.999.9';
const client = new Client({ baseUrl: process.env.FHIR_BASE, bearerToken: process.env.FHIR_TOKEN });

function patient(number, members = {}) {
  return { resourceType: 'Patient', identifier: [{ system: NUMBERS, value: number }], ...members };
}

async function refusal(promise, status) {
  const error = await promise.then(() => assert.fail('was not refused'), (found) => found);
  assert.equal(error.response?.status ?? error.status, status, error.stack);
  const outcome = error.response?.data ?? error.data;
  assert.equal(outcome.resourceType, 'OperationOutcome');
  return outcome;
}

const steps = {
  async discovery() {
    const statement = await client.capabilityStatement();
    const can = new CapabilityTool(statement);
    assert.ok(can.resourceCan('Patient', 'patch'));
    assert.ok(can.serverCan('transaction'));
    assert.ok(can.resourceSearch('Patient', 'birthdate'));
    const smart = await client.smartAuthMetadata();
    assert.equal(String(smart.tokenUrl), new URL('/auth/token', process.env.FHIR_BASE).href);
  },

  async instance() {
    const made = await client.create({ resourceType: 'Patient', body: patient(randomUUID(), { gender: 'male' }) });
    assert.equal(Client.httpFor(made).response.status, 201);
    const { id } = made;
    assert.deepEqual(await client.read({ resourceType: 'Patient', id }), made);
    const updated = await client.update({ resourceType: 'Patient', id, body: { ...made, gender: 'other' } });
    assert.equal(updated.meta.versionId, '2');
    const jsonPatch = [{ op: 'replace', path: '/gender', value: 'female' }];
    const patched = await client.patch({ resourceType: 'Patient', id, jsonPatch });
    assert.deepEqual([patched.gender, patched.meta.versionId], ['female', '3']);
    assert.equal((await client.vread({ resourceType: 'Patient', id, version: '1' })).gender, 'male');
    const history = await client.history({ resourceType: 'Patient', id });
    assert.deepEqual(history.entry.map((entry) => entry.request.method), ['PUT', 'PUT', 'POST']);
    const headers = { 'If-Match': 'W/"1"' };
    await refusal(client.update({ resourceType: 'Patient', id, body: made, options: { headers } }), 412);
    await client.delete({ resourceType: 'Patient', id });
    await refusal(client.read({ resourceType: 'Patient', id }), 410);
  },

  async conditions() {
    const number = randomUUID();
    const searchParams = { identifier: `${NUMBERS}|${number}` };
    const headers = { 'If-None-Exist': `identifier=${NUMBERS}|${number}` };
    const create = () => client.create({ resourceType: 'Patient', body: patient(number), options: { headers } });
    const [first, again] = [await create(), await create()];
    assert.equal(again.id, first.id);
    const body = patient(number, { gender: 'female' });
    const updated = await client.update({ resourceType: 'Patient', searchParams, body });
    assert.deepEqual([updated.id, updated.gender], [first.id, 'female']);
  },

  async search() {
    const number = randomUUID();
    for (let year = 1970; year < 1975; year += 1) {
      await client.create({ resourceType: 'Patient', body: patient(number, { birthDate: `${year}-01-01` }) });
    }
    const searchParams = { identifier: `${NUMBERS}|${number}`, _count: 2, _sort: '-birthdate' };
    for (const options of [{}, { postSearch: true }]) {
      const years = [];
      let bundle = await client.search({ resourceType: 'Patient', searchParams, options });
      while (bundle) {
        years.push(...bundle.entry.map((entry) => Number(entry.resource.birthDate.slice(0, 4))));
        bundle = await client.nextPage({ bundle });
      }
      assert.deepEqual(years, [1974, 1973, 1972, 1971, 1970]);
    }
  },

  async bundles() {
    const fullUrl = `urn:uuid:${randomUUID()}`;
    const observation = { resourceType: 'Observation', status: 'final', code: { text: 'weight' } };
    const entry = [
      { fullUrl, resource: patient(randomUUID()), request: { method: 'POST', url: 'Patient' } },
      {
        resource: { ...observation, subject: { reference: fullUrl } },
        request: { method: 'POST', url: 'Observation' },
      },
    ];
    const done = await client.transaction({ body: { resourceType: 'Bundle', type: 'transaction', entry } });
    assert.deepEqual(done.entry.map((one) => one.response.status.slice(0, 3)), ['201', '201']);
    const [at, of] = done.entry.map((one) => one.response.location.replace(/\/_history.*/, ''));
    const read = await client.resolve({ reference: of.replace(`${process.env.FHIR_BASE}/`, '') });
    assert.equal(read.subject.reference, at.replace(`${process.env.FHIR_BASE}/`, ''));
    const url = read.subject.reference;
    const batch = { resourceType: 'Bundle', type: 'batch', entry: [{ request: { method: 'GET', url } }] };
    assert.equal((await client.batch({ body: batch })).entry[0].resource.resourceType, 'Patient');
    const [, id] = url.split('/');
    const everything = await client.operation({ name: 'everything', resourceType: 'Patient', id, method: 'GET' });
    assert.deepEqual(everything.entry.map((one) => one.resource.resourceType).sort(), ['Observation', 'Patient']);
  },

  async operations() {
    const body = patient(randomUUID(), { gender: 'x' });
    const outcome = await client.operation({ name: 'validate', resourceType: 'Patient', input: body });
    assert.deepEqual(outcome.issue[0].expression, ['Patient.gender']);
    const told = await refusal(client.create({ resourceType: 'Patient', body }), 400);
    assert.deepEqual(told.issue[0].expression, ['Patient.gender']);
    const input = { url: 'http://hl7.org/fhir/ValueSet/administrative-gender' };
    const expanded = await client.operation({ name: 'expand', resourceType: 'ValueSet', method: 'GET', input });
    assert.ok(expanded.expansion.contains.some((one) => one.code === 'male'));
  },
};

for (const [name, step] of Object.entries(steps)) {
  await step();
  console.log(name);
}
