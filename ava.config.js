// MILLRACE_DIST names another build folder to test (deliberately broken builds, a build beside `dist`).
const dist = process.env.MILLRACE_DIST ?? 'dist';

// Test files run in processes of their own: fs-ext cannot be loaded by several threads of one process.
export default {
  workerThreads: false,
  files: [`${dist}/test/**/*.test.js`],
  timeout: '120s',
};
