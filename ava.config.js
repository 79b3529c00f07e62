// MILLRACE_DIST names another build folder to test (deliberately broken builds, a build beside `dist`).
const dist = process.env.MILLRACE_DIST ?? 'dist';

export default {
  files: [`${dist}/test/**/*.test.js`],
  timeout: '120s',
};
