// A bundler that follows Node's rules takes the whole CommonJS module for its default export, and
// Grafana's components mean the class in it.
import { Scrollbars } from './node_modules/react-custom-scrollbars-2/lib/index.js';

export { Scrollbars };
export default Scrollbars;
